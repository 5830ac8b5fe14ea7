//! What more processors would bring: a model fitted to what was measured, and how far it may be off.
//!
//! The Universal Scalability Law (N. Gunther, "Guerrilla Capacity Planning", 2007) says of throughput on `n` processors
//!
//! > X(n) = γ n / (1 + α (n − 1) + β n (n − 1))
//!
//! where γ is what one does, α the share of the work that only one can do at a time, and β what keeping two of them consistent costs.
//! With β = 0 it is Amdahl's law, and with α = 0 as well it is linear. Which of them can be told apart depends on how many different
//! `n` were measured: three parameters need four, two need two. α and β are never below zero.
//!
//! The fit is by least squares. 1/X is linear in 1/γ, α/γ and β/γ; from there Gauss and Newton go to the least squares of X itself.
//! Where a parameter would be negative it is held at zero, and of all that are left the best is taken.
//!
//! The error bars come from the rounds: the model is fitted to each round alone, and what those predict gives an interval like that of any
//! other figure, as sure as it says. It holds how rounds differ, never whether the law holds. Fewer than three rounds bear no bars. Two
//! numbers of processors and two parameters leave nothing over that could test the law, which is the first thing then told.

use std::collections::{BTreeMap, BTreeSet};

use crate::statistics::Estimate;
use crate::verdict::{ROUNDS, percent};

/// Steps of a descent: it needs ten or so, and each makes the squares smaller.
const STEPS: usize = 60;

/// One measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// In which round.
    pub round: u32,
    /// With how many processors.
    pub processors: f64,
    /// What was carried, in any unit.
    pub throughput: f64,
}

/// Which law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Two parameters: β is zero.
    Amdahl,
    /// Three parameters.
    Universal,
}

/// A law with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// What one processor does.
    pub gamma: f64,
    /// The share that only one can do at a time.
    pub alpha: f64,
    /// What keeping two consistent costs.
    pub beta: f64,
}

/// What the model says of a number of processors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// How many.
    pub processors: f64,
    /// Of the fit to all.
    pub throughput: f64,
    /// Where the rounds bear them: the lower and the upper end.
    pub bars: Option<(f64, f64)>,
}

/// A fitted model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Which law.
    pub law: Law,
    /// Fitted to everything.
    pub fit: Fit,
    /// Error bars of α, where the rounds bear them.
    pub alpha: Option<(f64, f64)>,
    /// How many rounds could be fitted alone.
    pub rounds: usize,
    /// How sure the error bars are, 0 to 1; 0 without any.
    pub confidence: f64,
    /// How many different numbers of processors were measured.
    pub distinct: usize,
    /// The most processors that were measured.
    pub measured: f64,
    /// What it predicts.
    pub predictions: Vec<Prediction>,
}

impl Fit {
    /// What `n` processors carry.
    pub fn at(&self, n: f64) -> f64 {
        self.gamma * n / (1.0 + self.alpha * (n - 1.0) + self.beta * n * (n - 1.0))
    }

    /// Least squares for a law; none where the points cannot tell.
    pub fn to(points: &[Point], law: Law) -> Option<Fit> {
        let distinct: BTreeSet<u64> = points.iter().map(|point| point.processors.to_bits()).collect();
        let usable = |point: &Point| point.processors >= 1.0 && point.throughput > 0.0 && point.throughput.is_finite();
        if distinct.len() < 2 || !points.iter().all(usable) {
            return None;
        }
        // All as parts of the largest, so that sums neither overflow nor vanish.
        let largest = points.iter().map(|point| point.throughput).fold(0.0, f64::max);
        let scaled: Vec<_> = points.iter().map(|point| (point.processors, point.throughput / largest)).collect();
        let sets: &[&[usize]] = match law {
            Law::Universal => &[&[0], &[0, 1], &[0, 2], &[0, 1, 2]],
            Law::Amdahl => &[&[0], &[0, 1]],
        };
        let fits = sets.iter().filter_map(|free| descend(&scaled, free));
        let best = fits.min_by(|one, other| one.1.total_cmp(&other.1))?;
        let [u, v, w] = best.0;
        Some(Fit { gamma: largest / u, alpha: v / u, beta: w / u })
    }
}

/// The three terms of n/X: for 1/γ, α/γ and β/γ.
fn terms(n: f64) -> [f64; 3] {
    [1.0, n - 1.0, n * (n - 1.0)]
}

fn denominator(parameters: &[f64; 3], n: f64) -> f64 {
    terms(n).iter().zip(parameters).map(|(term, parameter)| term * parameter).sum()
}

/// Squares left over; infinite where a parameter is not allowed.
fn squares(points: &[(f64, f64)], parameters: &[f64; 3]) -> f64 {
    if parameters[0] <= 0.0 || parameters[1] < 0.0 || parameters[2] < 0.0 {
        return f64::INFINITY;
    }
    points.iter().map(|(n, x)| (x - n / denominator(parameters, *n)).powi(2)).sum()
}

/// Some parameters free, the others zero: they, and the squares that they leave.
fn descend(points: &[(f64, f64)], free: &[usize]) -> Option<([f64; 3], f64)> {
    // x ≈ n/d, so n/x is linear in the parameters, and an error of x shows in it multiplied by n/x².
    let linear = |parameters: Option<&[f64; 3]>| {
        let mut normal = [[0.0; 4]; 3];
        for &(n, x) in points {
            let (slope, target) = match parameters {
                None => (x * x / n, n / x),
                Some(parameters) => {
                    let d = denominator(parameters, n);
                    (n / (d * d), (n / d - x) * d * d / n)
                }
            };
            let terms = terms(n);
            for (row, &i) in free.iter().enumerate() {
                for (column, &j) in free.iter().enumerate() {
                    normal[row][column] += slope * slope * terms[i] * terms[j];
                }
                normal[row][3] += slope * slope * terms[i] * target;
            }
        }
        let solved = solve(normal, free.len())?;
        let mut parameters = [0.0; 3];
        for (row, &i) in free.iter().enumerate() {
            parameters[i] = solved[row];
        }
        Some(parameters)
    };
    let mut at = linear(None)?;
    let mut left = squares(points, &at);
    if !left.is_finite() {
        // The start is outside: from inside it may still come back.
        let mean = points.iter().map(|(n, x)| n / x).sum::<f64>() / points.len() as f64;
        at = [mean, 0.0, 0.0];
        for &i in &free[1..] {
            at[i] = mean * 1e-6;
        }
        left = squares(points, &at);
    }
    for _ in 0..STEPS {
        let Some(step) = linear(Some(&at)) else { break };
        // Half as far until it is better: a step of Gauss and Newton may go too far.
        let better = (0..30).find_map(|half| {
            let part = 0.5_f64.powi(half);
            let next = [0, 1, 2].map(|i| at[i] + step[i] * part);
            let rest = squares(points, &next);
            (rest < left).then_some((next, rest))
        });
        let Some((next, rest)) = better else { break };
        let done = left - rest <= left * 1e-14;
        (at, left) = (next, rest);
        if done {
            break;
        }
    }
    left.is_finite().then_some((at, left))
}

/// Gauss's elimination with the largest pivot; none where it has no single answer.
fn solve(mut matrix: [[f64; 4]; 3], size: usize) -> Option<[f64; 3]> {
    for column in 0..size {
        let pivot = (column..size).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        matrix.swap(column, pivot);
        if matrix[column][column].abs() < 1e-300 {
            return None;
        }
        for row in 0..size {
            if row != column {
                let factor = matrix[row][column] / matrix[column][column];
                let above = matrix[column];
                for (it, above) in matrix[row].iter_mut().zip(above) {
                    *it -= factor * above;
                }
            }
        }
    }
    let mut solved = [0.0; 3];
    for (row, it) in solved.iter_mut().enumerate().take(size) {
        *it = matrix[row][3] / matrix[row][row];
    }
    solved.iter().all(|it| it.is_finite()).then_some(solved)
}

impl Model {
    /// Fits what the points can bear and predicts.
    ///
    /// None where fewer than two different numbers of processors were measured.
    pub fn new(points: &[Point], far: &[f64]) -> Option<Model> {
        let distinct: BTreeSet<u64> = points.iter().map(|point| point.processors.to_bits()).collect();
        let law = if distinct.len() >= 4 { Law::Universal } else { Law::Amdahl };
        let fit = Fit::to(points, law)?;
        let mut rounds: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
        for point in points {
            rounds.entry(point.round).or_default().push(*point);
        }
        // A round that lacks something would be fitted to something else.
        let whole = |round: &&Vec<Point>| {
            round.iter().map(|point| point.processors.to_bits()).collect::<BTreeSet<_>>() == distinct
        };
        let fits: Vec<Fit> = rounds.values().filter(whole).filter_map(|round| Fit::to(round, law)).collect();
        let spread = |all: f64, of: &dyn Fn(&Fit) -> f64| {
            let found = Estimate::of(&fits.iter().map(of).collect::<Vec<_>>())?;
            // The fit to all rounds is between those of each but for what least squares make of one that is far off.
            (found.count >= ROUNDS).then_some((found.low.min(all), found.high.max(all)))
        };
        let predict = |&n: &f64| {
            let throughput = fit.at(n);
            Prediction { processors: n, throughput, bars: spread(throughput, &|fit| fit.at(n)) }
        };
        let sure = crate::statistics::width(fits.len()).filter(|_| fits.len() >= ROUNDS);
        Some(Model {
            law,
            fit,
            alpha: spread(fit.alpha, &|fit| fit.alpha),
            rounds: fits.len(),
            confidence: sure.map_or(0.0, |(_, confidence)| confidence),
            distinct: distinct.len(),
            measured: points.iter().map(|point| point.processors).fold(0.0, f64::max),
            predictions: far.iter().map(predict).collect(),
        })
    }

    /// What has to be known before anything that it predicts: that nothing tests it, if nothing does.
    pub fn warning(&self) -> Option<String> {
        (self.distinct < 3).then(|| {
            "Two points and two parameters: the fit is exact whatever was measured, and nothing here tests the law. Take what it says of more \
             processors for what would be if the law held, and not for a forecast."
                .to_owned()
        })
    }

    /// What has to hold for the predictions to hold, each in a sentence.
    pub fn assumptions(&self) -> Vec<String> {
        let mut list = vec![
            "What makes and takes the traffic shared the processors with the tunnel, so with all of them in use it took from the tunnel what it \
             needed itself: α holds that too, and a machine whose traffic comes from elsewhere may do better."
                .to_owned(),
        ];
        list.push(match self.law {
            Law::Universal => "The Universal Scalability Law: a share α of the work is done by one processor at a time, and \
                keeping each two of them consistent costs β."
                .to_owned(),
            Law::Amdahl => "Amdahl's law: a share α of the work is done by one processor at a time, and nothing else stands in the \
                way. Too few numbers of processors were measured to see what keeping them consistent costs (β), so more \
                processors than measured may bring less than this says."
                .to_owned(),
        });
        if self.fit.alpha == 0.0 && self.fit.beta == 0.0 {
            list.push("Where α is 0, throughput grew as much as the processors or more, and that it goes on so is nothing that was measured.".to_owned());
        }
        list.push(format!(
            "Measured with up to {} processors; everything beyond is extrapolated from there, and the further the less sure.",
            self.measured
        ));
        list.push(
            "More processors of the same kind and speed, with memory, interrupts and network card growing with them, on one socket."
                .to_owned(),
        );
        list.push(
            "At least as many flows as processors, spread evenly over them: a single flow does not spread, and as many streams were sent here \
             whatever the number of processors."
                .to_owned(),
        );
        list.push(match self.rounds {
            few if few < ROUNDS => format!("{few} rounds bear no error bars, so there are none."),
            rounds => format!(
                "The error bars are {} sure: the law was fitted to each of {rounds} rounds alone. They hold how rounds differ, and not whether \
                 the law holds.",
                percent(self.confidence)
            ),
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(list: &[(f64, f64)]) -> Vec<Point> {
        list.iter().map(|&(processors, throughput)| Point { round: 1, processors, throughput }).collect()
    }

    fn near(found: f64, known: f64, part: f64) {
        assert!((found - known).abs() <= known.abs() * part + 1e-12, "{found} for {known}");
    }

    /// The SPEC SDM91 benchmark of a Sun SPARCcenter 2000, from Gunther's book. What the R package `usl` 3.0 fits to it by nonlinear
    /// least squares is published with its tests: 90, 1078, 1541, 1850, 1879, 1822 and 1646.
    #[test]
    fn fits_what_is_published() {
        let data = [
            (1.0, 64.9),
            (18.0, 995.9),
            (36.0, 1652.4),
            (72.0, 1853.2),
            (108.0, 1828.9),
            (144.0, 1775.0),
            (216.0, 1702.2),
        ];
        let fit = Fit::to(&points(&data), Law::Universal).unwrap();
        let fitted: Vec<_> = data.iter().map(|(n, _)| fit.at(*n).round()).collect();
        assert_eq!(fitted, [90.0, 1078.0, 1541.0, 1850.0, 1879.0, 1822.0, 1646.0], "{fit:?}");
    }

    /// The same package's test of its coefficients: α and β of 0.02 each, γ of 1.
    #[test]
    fn finds_what_was_put_in() {
        let data = [(1.0, 1.0), (2.0, 1.8868), (4.0, 3.0769), (6.0, 3.5294), (8.0, 3.5398), (10.0, 3.3557)];
        let fit = Fit::to(&points(&data), Law::Universal).unwrap();
        for (found, known) in [(fit.alpha, 0.02), (fit.beta, 0.02), (fit.gamma, 1.0)] {
            near(found, known, 5e-3);
        }
        // Amdahl: with a share of a tenth, 2 processors do 1.818 and 4 do 3.077.
        let fit = Fit::to(&points(&[(1.0, 1e9), (2.0, 2e9 / 1.1)]), Law::Amdahl).unwrap();
        near(fit.alpha, 0.1, 1e-9);
        near(fit.at(4.0), 4e9 / 1.3, 1e-9);
    }

    #[test]
    fn more_than_linear_is_taken_for_linear() {
        let fit = Fit::to(&points(&[(1.0, 1.0), (2.0, 2.2), (3.0, 3.3), (4.0, 4.5)]), Law::Universal).unwrap();
        assert_eq!((fit.alpha, fit.beta), (0.0, 0.0));
        near(fit.gamma, (1.0 + 4.4 + 9.9 + 18.0) / 30.0, 1e-9);
    }

    #[test]
    fn what_cannot_be_told_is_not() {
        assert_eq!(Model::new(&[], &[4.0]), None);
        assert_eq!(Model::new(&points(&[(2.0, 1.0), (2.0, 1.1)]), &[4.0]), None);
        assert_eq!(Model::new(&points(&[(1.0, 0.0), (2.0, 1.1)]), &[4.0]), None);
        assert_eq!(Model::new(&points(&[(1.0, 1.0), (2.0, f64::INFINITY)]), &[4.0]), None);
    }

    #[test]
    fn error_bars_grow_with_distance_and_hold_the_truth() {
        let truth = Fit { gamma: 3e9, alpha: 0.05, beta: 0.001 };
        // Errors of two per cent, the same every time.
        let error = |round: u32, n: u32| 1.0 + 0.02 * f64::from((round * 7 + n * 13) % 5) / 2.0 - 0.02;
        let all: Vec<Point> = (1..=9)
            .flat_map(|round| {
                (1..=8).map(move |n| {
                    let processors = f64::from(n);
                    Point { round, processors, throughput: truth.at(processors) * error(round, n) }
                })
            })
            .collect();
        let model = Model::new(&all, &[4.0, 16.0, 64.0]).unwrap();
        assert_eq!((model.law, model.rounds, model.measured), (Law::Universal, 9, 8.0));
        let bars = |it: &Prediction| it.bars.unwrap();
        let widths: Vec<_> = model.predictions.iter().map(|it| (bars(it).1 - bars(it).0) / it.throughput).collect();
        assert!(widths.windows(2).all(|pair| pair[0] < pair[1]), "{widths:?}");
        for it in &model.predictions {
            let (low, high) = bars(it);
            assert!(low <= it.throughput && it.throughput <= high, "{it:?}");
            assert!((low * 0.9..=high * 1.1).contains(&truth.at(it.processors)), "{it:?}");
        }
        // Nine rounds: from the second to the eighth, as any other interval.
        assert_eq!(model.confidence, 1.0 - 10.0 / 256.0);
        assert!(model.assumptions().iter().any(|line| line.contains("96.1 % sure") && line.contains("9 rounds")));
        assert_eq!(model.warning(), None);
        // Two numbers of processors bear two parameters, and the model says so before anything else.
        let mut few: Vec<_> = all.into_iter().filter(|point| point.processors <= 2.0).collect();
        let model = Model::new(&few, &[4.0]).unwrap();
        assert_eq!(model.law, Law::Amdahl);
        assert!(model.warning().unwrap().starts_with("Two points and two parameters"));
        assert!(model.assumptions()[0].contains("shared the processors"));
        assert!(model.assumptions()[1].contains("Too few numbers of processors"));
        // Three rounds bear bars that are 75 % sure, two none; one that lacks a number of processors is none.
        few.retain(|point| point.round <= 3);
        assert_eq!(Model::new(&few, &[4.0]).unwrap().confidence, 0.75);
        few.pop();
        let model = Model::new(&few, &[4.0]).unwrap();
        assert_eq!((model.rounds, model.confidence, model.alpha, model.predictions[0].bars), (2, 0.0, None, None));
        assert!(model.assumptions().iter().any(|line| line.contains("2 rounds bear no error bars")));
    }
}
