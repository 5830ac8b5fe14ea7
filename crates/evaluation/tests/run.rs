//! Runs are read from files that anyone may have written.

use std::fs;
use std::time::Duration;

use evaluation::{Code, CodePart, Distribution, Growth, GuestKernel, Machine, Plan, Record, Run, Step, System};
use proptest::prelude::*;

fn machine() -> Machine {
    Machine { cpu: "a processor".to_owned(), processors: 2, kernel: "6.1".to_owned(), ..Machine::default() }
}

fn run() -> Run {
    let mut run = Run::new("r", 1_795_310_000, 7, machine());
    let part = CodePart {
        what: "all of it".to_owned(),
        of: "a 1.0".to_owned(),
        cryptography: true,
        lines: [("C".to_owned(), 12)].into(),
    };
    let code = Code { parts: vec![part], remark: String::new() };
    run.systems.insert("a".to_owned(), System { code: Some(code), ..System::default() });
    let mut latency = Distribution::new();
    latency.record(Duration::from_micros(85));
    let mut record = Record::new("latency", "a", 1, 0).with("p50", 85e-6).with("p99", 1.5e-4);
    record.latency = Some(latency);
    run.records.push(record);
    let kernel = GuestKernel {
        release: "6.12.1".to_owned(),
        carried: 9,
        loads: vec![0.25],
        growth: Some(Growth { image: 1, text: 2, data: 3, bss: 4 }),
        interfaces_survive: Some(false),
        emulated: true,
        when: 1_795_310_000,
        ..GuestKernel::default()
    };
    run.kernels.insert("6.12".to_owned(), kernel);
    run.records
        .push(Record::new("streams", "a", 1, 5).at("streams", 4.0).labelled("link", "gso").with("throughput", 9.5e9));
    run
}

#[test]
fn a_run_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    run().save(&path).unwrap();
    assert_eq!(Run::load(&path).unwrap(), run());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_run_of_before_there_were_kernels_is_read() {
    let old = Run { kernels: std::collections::BTreeMap::new(), ..run() };
    assert!(!old.text().contains("kernels"));
    assert_eq!(Run::parse("old", &old.text()).unwrap(), old);
}

#[test]
fn bad_input_gets_one_clear_line() {
    let text = run().text();
    let changed = |from: &str, to: &str| {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text, "{from} is not in {text}");
        other
    };
    for (text, said) in [
        (String::new(), "f.json: not a run of the lab: EOF while parsing a value at line 1 column 0"),
        ("[]".to_owned(), "f.json: not a run of the lab: invalid length 0"),
        (changed("\"format\": 1", "\"format\": 2"), "f.json: written in form 2, and this program reads form 1"),
        (changed("\"processors\": 2", "\"processors\": 0"), "f.json: a machine without processors"),
        (changed("\"seed\"", "\"sead\""), "unknown field `sead`"),
        (changed("\"streams\",", "\"streems\","), "record 2: no experiment is named \"streems\" (there are streams, "),
        (changed("\"experiment\": \"streams\"", "\"experiment\": \"efficiency\""), "it reads those of \"tunnels\""),
        (changed("\"streams\": 4.0", "\"stream\": 4.0"), "record 2: \"streams\" needs \"streams\" in x"),
        (
            changed("\"streams\": 4.0", "\"streams\": -4.0"),
            "record 2: \"streams\" is -4, which is no number from 0 to 1e18",
        ),
        (changed("9500000000.0", "1e999"), "number out of range"),
        (changed("\"throughput\"", "\"thruput\""), "has no metric \"thruput\" (it has throughput, "),
        (changed("0.25", "-0.25"), "kernel \"6.12\": a load that took -0.25 s, which is no time"),
        (changed("\"carried\": 9", "\"carried\": 0"), "kernel \"6.12\": neither bytes that it carried nor a failure"),
        (changed("\"carried\"", "\"caried\""), "unknown field `caried`"),
        (changed("\"took\": 0.0", "\"took\": -1.0"), "record 1: took -1 s"),
        (changed("\"took\": 0.0", "\"took\": 1e300"), "record 1: took 1000"),
        (changed("9500000000.0", "1.79e308"), "which is no number from 0 to 1e18"),
        (changed("\"round\": 1", "\"round\": 10001"), "record 1: round 10001"),
        (changed("\"seed\"", "\"se\\u001b[2J\\nd\""), "se\\u{1b}[2J\\u{a}d"),
        (changed("\"system\": \"a\"", "\"system\": \"b\""), "record 1: system \"b\" is not among the run's systems"),
        (changed("\"round\": 1", "\"round\": 0"), "record 1: round 0, and rounds are counted from 1 to 10000"),
    ] {
        let error = Run::parse("f.json", &text).unwrap_err().to_string();
        assert!(
            error.contains(said) && error.starts_with("f.json: ") && !error.contains('\n'),
            "{error}\nlacks\n{said}"
        );
    }
    let mut twice = run();
    twice.records.push(twice.records[1].clone());
    assert_eq!(twice.fault().unwrap(), "record 3: the same measurement twice in round 1");
    let mut empty = run();
    empty.records[1].metrics.clear();
    assert_eq!(empty.fault().unwrap(), "record 2: neither a figure nor a failure");
    empty.records[1].failure = Some("it said no".to_owned());
    assert_eq!(empty.fault(), None);
    let error = Run::load("/does/not/exist.json".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("/does/not/exist.json: No such file"), "{error}");
}

#[test]
fn a_run_is_resumed_where_it_stopped() {
    let mut step = Step::new("streams", "a", 3.0);
    step.x.insert("streams".to_owned(), 4.0);
    step.labels.insert("link".to_owned(), "gso".to_owned());
    let plan =
        Plan { steps: vec![Step::new("latency", "a", 1.0), step.clone(), Step::new("start", "a", 10.0)], rounds: 2 };
    let mut run = run();
    run.records[1].took = 5.0;
    let missing = |run: &Run, again: bool| -> Vec<(String, u32)> {
        plan.missing(run, again).into_iter().map(|todo| (todo.step.experiment.clone(), todo.round)).collect()
    };
    let named =
        |list: &[(&str, u32)]| -> Vec<(String, u32)> { list.iter().map(|(a, b)| ((*a).to_owned(), *b)).collect() };
    assert_eq!(missing(&run, false), named(&[("start", 1), ("latency", 2), ("streams", 2), ("start", 2)]));
    // Latency took nothing, streams five seconds, and what was never measured takes what the plan says.
    assert!((plan.estimate(&run, false) - 25.0).abs() < 1e-9);
    // A failure is not tried again unless it is asked for.
    let mut failed = step.record(2, 9);
    failed.failure = Some("it said no".to_owned());
    run.records.push(failed);
    assert_eq!(missing(&run, false).len(), 3);
    assert_eq!(missing(&run, true).len(), 4);
}

#[test]
fn what_a_step_takes_is_judged_by_what_it_took() {
    let at = |system: &str, peers: f64| {
        let mut step = Step::new("peers", system, 2.0);
        step.x.insert("peers".to_owned(), peers);
        step
    };
    let plan = Plan { steps: vec![at("a", 1.0), at("a", 1e5), at("b", 1.0), at("b", 1e5)], rounds: 2 };
    let mut run = run();
    let mut took = |step: &Step, round, took, failure: Option<&str>| {
        let record = step.record(round, 9).with("throughput", 1.0);
        run.records.push(evaluation::Record { took, failure: failure.map(str::to_owned), ..record });
    };
    took(&at("a", 1.0), 1, 1.0, None);
    took(&at("a", 1e5), 1, 40.0, None);
    took(&at("b", 1e5), 1, 60.0, Some("waited 60000 ms in vain"));
    let expected: Vec<f64> = plan.steps.iter().map(|step| plan.expected(&run, step)).collect();
    // One peer is not a hundred thousand; what was not seen of one system is as of another; and a failure takes its time again.
    assert_eq!(expected, [1.0, 40.0, 1.0, 60.0]);
    assert!((plan.estimate(&run, false) - (1.0 + 1.0 + 40.0 + 1.0 + 60.0)).abs() < 1e-9);
    assert_eq!(plan.expected(&run, &at("b", 7.0)), 2.0);
}

#[test]
fn a_machine_is_the_same_after_a_reboot() {
    let machine = Machine { cpu: "A".to_owned(), processors: 2, memory: 16 << 30, ..Machine::default() };
    assert!(machine.is_same(&Machine { memory: (16 << 30) - (100 << 20), ..machine.clone() }));
    assert!(!machine.is_same(&Machine { memory: 15 << 30, ..machine.clone() }));
    assert!(!machine.is_same(&Machine { processors: 4, ..machine.clone() }));
    assert!(!machine.is_same(&Machine { kernel: "6.19".to_owned(), ..machine.clone() }));
}

proptest! {
    /// Whatever is in a file, it is a run or one line says what it is not.
    #[test]
    fn anything_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(error) = Run::parse("f", &text) {
            prop_assert!(error.to_string().starts_with("f: ") && !error.to_string().contains('\n'));
        }
    }

    /// A run with some bytes changed is refused, or is one that can be written and read again.
    #[test]
    fn what_is_read_can_be_written(changes in prop::collection::vec((0_usize..4000, prop::char::range(' ', '~')), 0..4)) {
        let mut text: Vec<char> = run().text().chars().collect();
        for (at, to) in changes {
            let at = at % text.len();
            text[at] = to;
        }
        let text: String = text.into_iter().collect();
        match Run::parse("f", &text) {
            Ok(run) => {
                prop_assert_eq!(run.fault(), None);
                prop_assert_eq!(Run::parse("g", &run.text()).unwrap(), run);
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}
