//! What is to be measured: every experiment of every system that it suits, from site to site; and less of it where the time is short.

use evaluation::{Plan, Step, catalogue, verdict};

use super::bench::Site;
use super::{ALL, Effort, Experiment, wakeups};
use crate::Gso;
use crate::subject::Subject;

/// What goes first where the time is short.
const DISPENSABLE: [&str; 7] = ["wakeups", "scaling", "flood", "mtu", "recovery", "peers", "cores"];

/// Fewer rounds bear no verdict.
const VERDICT: u32 = verdict::ROUNDS as u32;

/// A plan, and how thorough it is.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What is to be measured.
    pub plan: Plan,
    /// How thoroughly.
    pub effort: Effort,
    /// Experiments that were asked for and left out, because the time is short.
    pub left_out: Vec<&'static str>,
}

impl Planned {
    /// Seconds that all of it takes, as long as nothing was measured.
    pub fn seconds(&self) -> f64 {
        f64::from(self.plan.rounds) * self.plan.steps.iter().map(|step| step.seconds).sum::<f64>()
    }
}

/// The experiment of a step, and the value of its axis.
pub(super) fn of(step: &Step) -> Option<(&'static dyn Experiment, f64)> {
    let experiment = ALL.into_iter().find(|it| it.slug() == step.experiment)?;
    let axis = catalogue::find(&step.experiment)?.axis;
    Some((experiment, axis.and_then(|axis| step.x.get(axis.key).copied()).unwrap_or_default()))
}

/// The label of records that tells on which kind of link they were measured.
const LINK: &str = "link";

/// The kind of link that a step is measured on.
pub(super) fn link(step: &Step) -> Gso {
    match step.labels.get(LINK) {
        Some(label) if label == Gso::Through.label() => Gso::Through,
        _ => Gso::Off,
    }
}

/// A plan of these experiments (all, where none are named) with these systems.
pub fn plan(subjects: &[&dyn Subject], experiments: &[String], effort: &Effort, rounds: u32) -> Planned {
    planned(subjects, experiments, effort, rounds, Vec::new())
}

/// The same within so many seconds: as thorough as fits with the rounds that a verdict needs; then without some experiments; and only then with fewer
/// rounds. Where even that is too much, one round of the least is planned, and whoever measures has to stop in time.
pub fn plan_within(seconds: f64, subjects: &[&dyn Subject], experiments: &[String], rounds: Option<u32>) -> Planned {
    let fits = |planned: &Planned| planned.seconds() <= seconds;
    for effort in Effort::all() {
        // Five make an interval that is as sure as is usual.
        for rounds in rounds.map_or(vec![5, VERDICT], |asked| vec![asked]) {
            let found = plan(subjects, experiments, &effort, rounds);
            if fits(&found) {
                return found;
            }
        }
    }
    let least = rounds.unwrap_or(1);
    let mut found = plan(subjects, experiments, &Effort::hasty(), least);
    for rounds in (least..=rounds.unwrap_or(VERDICT)).rev() {
        for count in 0..=DISPENSABLE.len() {
            found = planned(subjects, experiments, &Effort::hasty(), rounds, DISPENSABLE[..count].to_vec());
            if fits(&found) {
                return found;
            }
        }
    }
    found
}

fn planned(
    subjects: &[&dyn Subject],
    experiments: &[String],
    effort: &Effort,
    rounds: u32,
    without: Vec<&'static str>,
) -> Planned {
    let asked = |slug: &str| experiments.is_empty() || experiments.iter().any(|it| it == slug);
    let (left_out, kept): (Vec<_>, Vec<_>) =
        ALL.into_iter().filter(|it| asked(it.slug())).partition(|it| without.contains(&it.slug()));
    let mut found: Vec<(Site, Gso, usize, Step)> = Vec::new();
    for experiment in kept {
        for (number, subject) in subjects.iter().enumerate().filter(|(_, subject)| experiment.suits(**subject)) {
            for x in experiment.points(effort) {
                let mut step = Step::new(experiment.slug(), subject.slug(), experiment.seconds(x, effort));
                if let Some(axis) = catalogue::find(experiment.slug()).and_then(|it| it.axis) {
                    step.x.insert(axis.key.to_owned(), x);
                }
                let mut push = |step: Step| found.push((experiment.site(x, effort), link(&step), number, step));
                let links = experiment.links(effort);
                if links.is_empty() {
                    push(step);
                    continue;
                }
                for link in links {
                    let mut step = step.clone();
                    step.labels.insert(LINK.to_owned(), link.label().to_owned());
                    push(step);
                }
            }
        }
    }
    // The order of experiments stays what it is within a site.
    found.sort_by_key(|(site, link, number, _)| (*site, *link, *number));
    let mut last = None;
    for (site, link, number, step) in &mut found {
        if last != Some((*site, *link, *number)) {
            step.seconds += site.seconds();
            last = Some((*site, *link, *number));
        }
    }
    // They are watched at once, however many there are; what each of them costs alone is to be set up.
    let quiet = found.iter().filter(|(site, ..)| *site == Site::Quiet).count();
    for (.., step) in found.iter_mut().filter(|(site, ..)| *site == Site::Quiet) {
        step.seconds -= wakeups::SECONDS * (1.0 - 1.0 / quiet as f64);
    }
    let steps = found.into_iter().map(|(.., step)| step).collect();
    let left_out = left_out.into_iter().map(|it| it.slug()).collect();
    Planned { plan: Plan { steps, rounds }, effort: effort.clone(), left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject;

    const QUICK: f64 = 540.0;

    fn with<T>(count: usize, f: impl FnOnce(&[&dyn Subject]) -> T) -> T {
        let all = subject::all();
        // As many as are asked for, some of them several times: a plan only asks what they are.
        let subjects: Vec<&dyn Subject> = all.iter().map(|it| &**it).cycle().take(count).collect();
        f(&subjects)
    }

    #[test]
    fn a_quick_plan_fits_the_time_however_many_systems_there_are() {
        for count in 1..=16 {
            let found = with(count, |subjects| plan_within(QUICK, subjects, &[], None));
            assert!(found.seconds() <= QUICK, "{count} systems: {} s", found.seconds());
            assert!(found.plan.rounds >= 1 && !found.plan.steps.is_empty());
        }
    }

    #[test]
    fn few_systems_get_more_and_many_get_less() {
        let few = with(1, |subjects| plan_within(QUICK, subjects, &[], None));
        assert_eq!((few.plan.rounds, few.effort.name, few.left_out.len()), (3, "medium", 0));
        // All that this machine could have, but for the variants: experiments go before rounds do.
        let all = subject::all();
        let usual: Vec<&dyn Subject> = all.iter().map(|it| &**it).filter(|it| !it.is_variant()).collect();
        let usual = plan_within(QUICK, &usual[..10], &[], None);
        assert_eq!((usual.plan.rounds, usual.effort.name), (3, "hasty"));
        assert!(!usual.left_out.is_empty() && usual.left_out.len() < DISPENSABLE.len(), "{:?}", usual.left_out);
        let many = with(40, |subjects| plan_within(QUICK, subjects, &[], None));
        assert_eq!((many.plan.rounds, many.effort.name), (1, "hasty"));
        assert!(!many.left_out.is_empty());
        // As many rounds as were asked for, whatever else has to go.
        let asked = with(8, |subjects| plan_within(QUICK, subjects, &[], Some(2)));
        assert_eq!(asked.plan.rounds, 2);
    }

    #[test]
    fn what_shares_a_site_is_measured_in_a_row() {
        let found = with(4, |subjects| plan(subjects, &[], &Effort::quick(), 1));
        let mut seen: Vec<(Site, Gso, String)> = Vec::new();
        for step in &found.plan.steps {
            let (experiment, x) = of(step).unwrap();
            let place = (experiment.site(x, &found.effort), link(step), step.system.clone());
            if seen.last() != Some(&place) {
                assert!(!seen.contains(&place), "{place:?} twice");
                seen.push(place);
            }
        }
    }

    #[test]
    fn throughput_is_measured_on_each_kind_of_link() {
        let kinds = |effort: &Effort, slug: &str| -> Vec<Option<String>> {
            let found = with(1, |subjects| plan(subjects, &[slug.to_owned()], effort, 1));
            let mut kinds: Vec<_> = found.plan.steps.iter().map(|step| step.labels.get("link").cloned()).collect();
            kinds.dedup();
            kinds
        };
        let both = [Some("off".to_owned()), Some("gso".to_owned())];
        // The one that flatters comes second, and is the one that goes where the time is short.
        assert_eq!(kinds(&Effort::full(), "streams"), both);
        assert_eq!(kinds(&Effort::quick(), "streams"), both[..1]);
        assert_eq!(kinds(&Effort::full(), "latency"), [None]);
    }

    #[test]
    fn only_what_was_asked_for_is_planned() {
        let asked = ["latency".to_owned(), "start".to_owned()];
        let found = with(1, |subjects| plan(subjects, &asked, &Effort::full(), 5));
        let steps: Vec<&str> = found.plan.steps.iter().map(|step| step.experiment.as_str()).collect();
        assert_eq!((steps, found.plan.rounds), (vec!["latency", "start"], 5));
    }

    #[test]
    fn systems_are_asked_only_what_they_can_answer() {
        let none = subject::named("none").unwrap();
        let found = plan(&[&*none], &[], &Effort::full(), 1);
        let asked = |slug: &str| found.plan.steps.iter().any(|step| step.experiment == slug);
        for slug in ["streams", "tunnels", "latency"] {
            assert!(asked(slug), "{slug}");
        }
        for slug in ["recovery", "start", "memory", "wakeups", "handshakes", "peers", "first-byte", "scaling"] {
            assert!(!asked(slug), "{slug}");
        }
    }
}
