//! What a report says and how it looks, of a run that was measured and of one that is made up.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use evaluation::compare::{Course, compare, comparison};
use evaluation::merge::merge;
use evaluation::{Code, CodePart, GuestKernel, Record, Run, report};
use roxmltree::{Document, Node};

mod support;

/// A run of `cargo xtask bench net` with three rounds, each figure as it was measured, turned into base units.
fn measured() -> Run {
    Run::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bench.json")).unwrap()
}

/// All pictures of a page but those of the legends.
fn pictures(page: &str) -> Vec<&str> {
    let starts = page.match_indices("<svg class=\"plot\"").map(|(at, _)| &page[at..]);
    starts.map(|rest| &rest[..rest.find("</svg>").unwrap() + 6]).collect()
}

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Where a text stands: left, right, top and bottom, with letters as wide as those of DejaVu Sans are on average.
fn extent(node: Node<'_, '_>) -> [f64; 4] {
    let wide = node.text().unwrap_or_default().chars().count() as f64 * 6.6;
    let (x, y) = (number(node, "x"), number(node, "y"));
    let left = match node.attribute("text-anchor").unwrap() {
        "start" => x,
        "middle" => x - wide / 2.0,
        "end" => x - wide,
        other => panic!("{other}"),
    };
    [left, left + wide, y - 9.0, y + 2.0]
}

#[test]
fn no_text_of_a_picture_touches_another_or_leaves_it() {
    for (page, least) in [(report::html(&support::made_up(5)), 35), (report::html(&measured()), 20)] {
        let pictures = pictures(&page);
        assert!(pictures.len() >= least, "{}", pictures.len());
        for picture in pictures {
            let document = Document::parse(picture).unwrap();
            let title = document.root_element().attribute("aria-label").unwrap();
            let size: Vec<f64> = document
                .root_element()
                .attribute("viewBox")
                .unwrap()
                .split(' ')
                .map(|it| it.parse().unwrap())
                .collect();
            let texts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("text")).collect();
            assert!(texts.len() >= 3, "{title}");
            for (at, one) in texts.iter().enumerate() {
                let [left, right, top, bottom] = extent(*one);
                let said = one.text().unwrap_or_default();
                assert!(
                    left >= -1.0 && right <= size[2] + 6.0 && top >= 0.0 && bottom <= size[3] + 1.0,
                    "{title}: {said}"
                );
                for other in &texts[at + 1..] {
                    let [l, r, t, b] = extent(*other);
                    let apart = right <= l || r <= left || bottom <= t || b <= top;
                    assert!(apart, "{title}: {said:?} and {:?}", other.text());
                }
            }
            for mark in document.descendants().filter(|node| node.has_tag_name("circle")) {
                let (x, y) = (number(mark, "cx"), number(mark, "cy"));
                assert!((0.0..=size[2]).contains(&x) && (0.0..=size[3]).contains(&y), "{title}: {x} {y}");
            }
        }
    }
}

#[test]
fn a_page_needs_nothing_else_and_trusts_nothing() {
    let mut run = support::made_up(3);
    let evil = "<script>alert('x')</script>\u{1} & \"co\"</script>";
    run.id = evil.to_owned();
    run.settings.insert(evil.to_owned(), evil.to_owned());
    if let Some(system) = run.systems.get_mut("boringtun") {
        system.title = evil.to_owned();
    }
    let mut failed = Record::new("streams", "boringtun", 9, 0).at("streams", 1.0);
    failed.failure = Some(evil.to_owned());
    run.records.push(failed);
    assert_eq!(run.fault(), None);
    let page = report::html(&run);
    assert_eq!(page.matches("<script").count(), 1, "only the data, which no browser runs");
    assert!(page.contains("<script type=\"application/json\" id=\"run\">"));
    for from in ["src=", "href=\"http", "url(", "@import", "<link", "<img", "javascript:"] {
        assert!(!page.contains(from), "{from}");
    }
    assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"));
    // Each link within the page leads somewhere.
    for link in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
    }
    // The data is the run, whole.
    let data = page.split("id=\"run\">").nth(1).unwrap().split("</script>").next().unwrap();
    assert_eq!(Run::parse("page", data).unwrap(), run);
    // Nor does a terminal see what would move its cursor.
    assert!(report::summary(&run, 80).chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn every_experiment_of_the_catalogue_is_told() {
    let run = support::made_up(6);
    let (page, summary) = (report::html(&run), report::summary(&run, 100));
    for experiment in &evaluation::catalogue::EXPERIMENTS {
        assert!(page.contains(&format!("<section id=\"{}\">", experiment.slug)), "{}", experiment.slug);
        assert!(summary.contains(experiment.title));
    }
    for said in [
        "a model, no measurement",
        "Universal Scalability Law",
        "CVE-2024-26861",
        "CryptoVerif",
        "cargo install gotatun-cli",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert!(page.contains("16</th><th scope=\"col\">32</th><th scope=\"col\">64</th>"));
    // The same run, the same page, chance included.
    let small =
        Run { records: run.records.into_iter().filter(|it| it.experiment == "start").collect(), ..support::made_up(1) };
    assert_eq!(report::html(&small), report::html(&small));
}

/// What the figures of the measured run say, reckoned by hand from its file.
#[test]
fn verdicts_are_those_of_the_figures() {
    let run = measured();
    let text = report::summary(&run, 10_000);
    let median = |system: &str, link: &str, streams: f64| {
        let mut values: Vec<f64> = run
            .records
            .iter()
            .filter(|it| it.experiment == "streams" && it.system == system && it.labels["link"] == link)
            .filter(|it| it.x["streams"] == streams)
            .map(|it| it.metrics["throughput"])
            .collect();
        values.sort_by(f64::total_cmp);
        assert_eq!(values.len(), 3);
        values
    };
    let ours = median("wireloom", "super-packets pass whole", 8.0);
    let line = format!(
        "Highest throughput at 8 TCP streams in one tunnel: wireloom, {:.2} Gb/s ({:.2}–{:.2}).",
        ours[1] / 1e9,
        ours[0] / 1e9,
        ours[2] / 1e9
    );
    assert!(text.contains(&line), "{line}\n{text}");
    assert!(text.contains("With 3 rounds the intervals are only 75 % sure."));
    // Of idle latency boringtun's median is the least, and no difference to ours can be shown: the ratios lie on both sides of 1.
    assert!(text.contains("Lowest round trip, median: boringtun"), "{text}");
    assert!(text.contains("No difference to it can be shown for wireloom"), "{text}");
}

#[test]
fn few_rounds_and_emulation_bear_no_verdict() {
    let mut run = measured();
    run.records.retain(|record| record.round <= 2);
    let text = report::summary(&run, 10_000);
    assert!(text.contains("Too few rounds (2) for figures to quote."));
    assert!(
        !text.contains("Highest") && !text.contains("Lowest") && text.contains("Too few rounds (2) for a verdict."),
        "{text}"
    );
    let mut run = measured();
    for record in run.records.iter_mut().filter(|record| record.system == "wireloom") {
        record.emulated = true;
    }
    let text = report::summary(&run, 10_000);
    assert!(text.contains("Emulated, so nothing is said about speed: wireloom."), "{text}");
    assert!(!text.contains("Highest throughput at 8 TCP streams in one tunnel: wireloom"), "{text}");
    let page = report::html(&run);
    let speed = page.split("<section id=\"streams\">").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(!speed.contains("<li class=\"ours-name\">"), "no picture of speed has it");
    // What it weighs is not speed.
    assert!(text.contains("Lowest memory after load: boringtun"), "{text}");
    assert!(text.split("Memory\n").nth(1).unwrap().contains("wireloom"), "{text}");
}

fn part(of: &str, cryptography: bool, lines: u64) -> CodePart {
    let lines = [("C".to_owned(), lines), ("Rust".to_owned(), 1)].into();
    CodePart { what: "some <parts>".to_owned(), of: of.to_owned(), cryptography, lines }
}

#[test]
fn what_is_trusted_is_told_with_and_without_cryptography() {
    let mut run = support::made_up(2);
    assert!(!report::html(&run).contains("Code to be trusted") && !report::summary(&run, 80).contains("Code to be"));
    let shared = part("library 2", true, 4000);
    let gotatun = Code { parts: vec![part("gotatun 1", false, 700), shared.clone()], remark: String::new() };
    let mine = Code { parts: vec![part("mine 1", false, 300), shared], remark: "a kernel of another".to_owned() };
    run.systems.get_mut("gotatun").unwrap().code = Some(gotatun.clone());
    run.systems.get_mut("wireloom").unwrap().code = Some(mine.clone());
    run.systems.get_mut("boringtun").unwrap().code = Some(gotatun.clone());
    run.code.insert("another".to_owned(), mine);
    let page = report::html(&run);
    // The smaller first, each with both numbers and the languages of both parts.
    let rows = "<tr><td>wireloom; another (not measured)</td><td>301</td><td>4302</td><td>C 4300, Rust 2</td></tr>\n\
                <tr><td>boringtun; gotatun</td><td>701</td><td>4702</td><td>C 4700, Rust 2</td></tr>";
    assert!(page.contains(rows), "{page}");
    assert!(page.contains(
        "<td>some &lt;parts&gt;</td><td>library 2</td><td>4001</td><td>cryptography</td><td>wireloom; another (not measured); boringtun; gotatun</td>"
    ));
    assert!(page.contains("wireloom; another (not measured): a kernel of another."));
    assert!(page.contains("<tr><td>gotatun</td><td>12</td><td>4</td></tr>"), "lines of configuration and steps");
    let told = report::summary(&run, 200);
    assert!(told.contains("  wireloom; another (not measured): 301 lines of its own, 4302 with its cryptography.\n  boringtun; gotatun: 701 "), "{told}");
    // A run without the numbers takes none away.
    let mut other = support::made_up(3);
    other.started += 60;
    other.records.iter_mut().for_each(|record| record.when += 60);
    let all = merge(&[run, other]).unwrap();
    assert_eq!(all.systems["gotatun"].code.as_ref(), Some(&gotatun));
    assert!(all.code.contains_key("another"));
}

#[test]
fn runs_are_merged_round_by_round() {
    let one = support::made_up(2);
    let mut other = support::made_up(3);
    other.id = "the other".to_owned();
    other.started += 60;
    other.records.iter_mut().for_each(|record| record.when += 60);
    let all = merge(&[one.clone(), other.clone()]).unwrap();
    assert_eq!(all.records.len(), one.records.len() + other.records.len());
    assert_eq!(all.records.iter().map(|record| record.round).max(), Some(5));
    assert_eq!(all.id, "made up, not measured + the other");
    assert_eq!(all.fault(), None);
    let refused = |other: &Run, said: &str| {
        let error = merge(&[one.clone(), other.clone()]).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains('\n'), "{error}");
    };
    refused(&one, "both have the same measurement, streams of wireloom at 2026-11-22T01:13:20Z");
    // Nor can what is in both come in by way of another run.
    let error = merge(&[all.clone(), other.clone()]).unwrap_err().to_string();
    assert!(error.contains("both have the same measurement"), "{error}");
    // A little more or less memory is the same machine after a reboot; what is missing in one run may be there in the other.
    let mut later = other.clone();
    later.machine.memory -= 3 << 20;
    let mut first = one.clone();
    first.missing.insert("boringtun".to_owned(), "cargo install".to_owned());
    first.missing.insert("kernel wireguard".to_owned(), "apt-get install".to_owned());
    assert_eq!(merge(&[first, later]).unwrap().missing, one.missing);
    let changed = |change: &dyn Fn(&mut Run)| {
        let mut run = other.clone();
        change(&mut run);
        run
    };
    refused(&changed(&|run| run.machine.kernel = "5.10".to_owned()), "measured on Made-up processor");
    refused(&changed(&|run| run.systems.get_mut("gotatun").unwrap().version = "2".to_owned()), "gotatun is ");
    let mut settings = one.clone();
    settings.settings = BTreeMap::from([("seconds".to_owned(), "1".to_owned())]);
    let seconds = changed(&|run| drop(run.settings.insert("seconds".to_owned(), "5".to_owned())));
    let error = merge(&[settings, seconds]).unwrap_err().to_string();
    assert!(error.ends_with("seconds is 1 in one and 5 in the other"), "{error}");
    assert!(merge(&[]).unwrap_err().to_string().contains("no run was named"));
}

#[test]
fn a_comparison_tells_what_changed_and_what_cannot_be_told() {
    // Three rounds bear no comparison of runs.
    let mut before = measured();
    assert!(compare(&before, &before).iter().all(|change| change.course() == Course::TooFew));
    let again: Vec<_> = before.records.iter().filter(|record| record.round <= 2).cloned().collect();
    before.records.extend(again.into_iter().map(|record| Record { round: record.round + 3, ..record }));
    let mut after = before.clone();
    after.id = "later".to_owned();
    for record in after.records.iter_mut().filter(|record| record.experiment == "streams" && record.system == "gotatun")
    {
        *record.metrics.get_mut("throughput").unwrap() *= 3.0;
    }
    for record in after.records.iter_mut().filter(|record| record.experiment == "memory" && record.system == "wireloom")
    {
        *record.metrics.get_mut("loaded").unwrap() *= 2.0;
    }
    let changes = compare(&before, &after);
    let count = |course: Course| changes.iter().filter(|change| change.course() == course).count();
    // One and eight streams over two links; memory over two links.
    assert_eq!((count(Course::Better), count(Course::Worse), count(Course::Other)), (4, 2, 0));
    assert_eq!(count(Course::Same) + 6, changes.len());
    let text = comparison(&before, &after);
    let (worse, better) = (text.find("\nWorse:\n").unwrap(), text.find("\nBetter:\n").unwrap());
    assert!(worse < better && text.contains("2.00 times") && text.contains("3.00 times"), "{text}");
    assert!(!text.contains("The machines differ") && text.contains("chance alone would make about"));
    after.machine.kernel = "7.0".to_owned();
    after.records.retain(|record| record.round < 3);
    let text = comparison(&before, &after);
    assert!(text.contains("The machines differ") && text.contains("Too few rounds to tell in"), "{text}");
    assert!(!text.contains("Worse:"), "{text}");
}

#[test]
fn kernels_in_guests_are_told_and_never_how_fast() {
    let mut run = support::made_up(3);
    run.records.clear();
    let page = report::html(&run);
    let section = page.split("<section id=\"kernels\">").nth(1).unwrap().split("</section>").next().unwrap();
    for said in [
        "<h2>Kernels in guests</h2>",
        "never how fast it carries packets",
        "6.12.1+made-up",
        "200,000 B, emulated",
        "269,623 B",
        "118,784 B",
        "339,968 B (8 more)",
        "20.0 ms",
        "all interfaces go with it",
        "70,000 B",
        "156,400 B (150,000 B + 6,000 B + 400 B)",
        "a new kernel and a reboot",
    ] {
        assert!(section.contains(said), "{said}\n{section}");
    }
    // A run of kernels alone has no rounds, and so none too few.
    let text = report::summary(&run, 10_000);
    assert!(!text.contains("Too few rounds") && !page.contains("id=\"glance\""), "{text}");
    assert!(
        text.contains(
            "\nKernels in guests\n  6.12 (6.12.1+made-up): kernel module carried 200,000 B right; file 269,623 B, memory 118,784 B; 339,968 B with \
             the 8 modules that it needs; loads in 20.0 ms in the emulator; a new version means that the module is exchanged, and all interfaces go with it.\n  \
             built-in-6.12 (6.12.1+made-up): built into the kernel carried 200,000 B right; adds 70,000 B to the compressed image and 156,400 B to memory; \
             a new version takes a new kernel and a reboot.\n  Emulation tells"
        ),
        "{text}"
    );
    // What somebody has written into a file stays text.
    let evil = "<b>\u{1}&";
    let failed = GuestKernel { release: evil.to_owned(), failure: Some(evil.to_owned()), ..GuestKernel::default() };
    run.kernels = [(evil.to_owned(), failed)].into();
    assert_eq!(run.fault(), None);
    assert!(!report::html(&run).contains("<b>") && report::html(&run).contains("failed: &lt;b&gt;"));
    assert!(report::summary(&run, 80).chars().all(|c| c == '\n' || !c.is_control()));
    run.kernels.clear();
    assert!(
        !report::html(&run).contains("Kernels in guests") && !report::summary(&run, 80).contains("Kernels in guests")
    );
}

#[test]
fn of_kernels_in_guests_the_last_look_stands_and_changes_are_told() {
    let one = support::made_up(1);
    let mut other = one.clone();
    other.id = "later".to_owned();
    other.started += 60;
    other.records.iter_mut().for_each(|record| record.when += 60);
    let kernel = other.kernels.get_mut("6.12").unwrap();
    (kernel.when, kernel.file, kernel.loads) = (kernel.when + 60, Some(300_000), vec![9.0]);
    let failed = GuestKernel { failure: Some("no emulator".to_owned()), when: u64::MAX, ..GuestKernel::default() };
    other.kernels.insert("built-in-6.12".to_owned(), failed);
    for runs in [[one.clone(), other.clone()], [other.clone(), one.clone()]] {
        let all = merge(&runs).unwrap();
        assert_eq!(all.kernels["6.12"], other.kernels["6.12"]);
        assert_eq!(
            all.kernels["built-in-6.12"], one.kernels["built-in-6.12"],
            "a failure says less than a look before it"
        );
    }
    let text = comparison(&one, &other);
    assert!(text.contains("\nKernels in guests:\n  6.12, file of the module: 269623 B became 300000 B\n"), "{text}");
    assert!(text.contains("built-in-6.12, failure: none became no emulator"), "{text}");
    assert!(!text.contains("load"), "what was timed in an emulator is not compared: {text}");
    assert!(!comparison(&one, &one).contains("Kernels in guests"));
}

#[test]
fn the_evaluation_in_the_tree_is_a_run_that_can_be_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/evaluation");
    let run = Run::load(&folder.join("run.json")).unwrap();
    let measured = |slug: &&String| run.records.iter().any(|it| it.system == **slug && it.failure.is_none());
    assert!(run.systems.keys().filter(measured).count() >= 8, "{:?}", run.systems.keys());
    assert!(run.records.iter().any(|it| it.round >= 3), "rounds that a verdict needs");
    assert!(run.kernels.values().any(|it| it.failure.is_none()) && run.systems.values().any(|it| it.code.is_some()));
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains(&run.id) && page.ends_with("</html>\n"));
    // It may be of an earlier version of the report, but what lies in it is the same run.
    let embedded = page.split("id=\"run\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
    assert_eq!(Run::parse("the page", embedded).unwrap(), run);
}

/// All that the summary says of an experiment.
fn answer(run: &Run, experiment: &str) -> String {
    let experiment = evaluation::catalogue::EXPERIMENTS.iter().find(|it| it.slug == experiment).unwrap();
    let text = report::summary(run, 100_000);
    let from = text.find(&format!("\n{}", experiment.title)).unwrap();
    let rest = &text[from + 1..];
    rest[..rest.find("\n\n").unwrap_or(rest.len())].to_owned()
}

#[test]
fn one_that_fails_now_and_then_spoils_nobody_elses_verdict() {
    let mut run = measured();
    for record in run.records.iter_mut().filter(|it| it.system == "gotatun" && it.round > 1) {
        record.failure = Some("it died".to_owned());
    }
    let streams = answer(&run, "streams");
    assert!(streams.contains("Highest throughput at 8 TCP streams in one tunnel: wireloom,"), "{streams}");
    assert!(streams.contains("Too few rounds to be ranked: gotatun "), "{streams}");
    assert!(!streams.contains("gotatun ("), "it is not held against anybody: {streams}");
    // All but one fail now and then.
    for record in run.records.iter_mut().filter(|it| it.system != "wireloom" && it.round > 1) {
        record.failure = Some("it died".to_owned());
    }
    let streams = answer(&run, "streams");
    assert!(
        streams.contains("Only wireloom was measured at 8 TCP streams in one tunnel often enough: throughput "),
        "{streams}"
    );
    assert!(!streams.contains("Highest") && streams.contains("Too few rounds to be ranked: "), "{streams}");
}

#[test]
fn what_the_sender_bounded_is_behind_nobody() {
    let mut run = measured();
    let before = answer(&run, "streams");
    let behind = |text: &str| text.lines().filter(|line| line.contains("Behind by a factor")).collect::<String>();
    assert!(behind(&before).contains("boringtun"), "{before}");
    for record in run.records.iter_mut().filter(|it| it.experiment == "streams" && it.system == "boringtun") {
        *record = record.clone().bounded("throughput");
    }
    let after = answer(&run, "streams");
    assert!(!behind(&after).contains("boringtun"), "{after}");
    assert!(after.contains("or more, the sender was the bound"), "{after}");
    // Who leads with what the sender bounded leads all the more.
    for record in run.records.iter_mut().filter(|it| it.experiment == "streams" && it.system == "wireloom") {
        *record = record.clone().bounded("throughput");
    }
    assert!(behind(&answer(&run, "streams")).contains("gotatun"));
}

#[test]
fn other_work_on_the_machine_speaks_against_the_figures() {
    let mut run = measured();
    let said = |run: &Run| report::summary(run, 10_000).contains("The machine had other work beside");
    assert!(!said(&run));
    run.records[0].disturbed = Some(0.25);
    run.records[7].disturbed = Some(1.5);
    let line = format!(
        "The machine had other work beside 2 of {} measurements, up to 1.50 processors' worth: do not quote these figures.",
        run.records.len()
    );
    for text in [report::summary(&run, 10_000), report::html(&run).replace("&#39;", "'")] {
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn a_terminal_is_told_of_more_processors_with_what_speaks_against_it_first() {
    let text = report::summary(&support::made_up(5), 10_000);
    let model = text.split("Beyond this machine, a model and no measurement:").nth(1).expect("a prediction");
    let model = &model[..model.find("\n\n").unwrap_or(model.len())];
    let (told, assumed) =
        (model.find(" by processors: 4 "), model.find("Amdahl's law: ").or(model.find("Universal Scalability Law: ")));
    assert!(told.is_some() && told < assumed && model.contains(", 64 "), "{model}");
    assert!(!model.contains("Two points and two parameters"));
    // Through two points a curve goes whatever they are: that is what comes first.
    let mut run = support::made_up(5);
    run.records.retain(|it| it.experiment != "scaling" || it.x.values().all(|x| *x <= 2.0));
    let text = report::summary(&run, 10_000);
    let model = text.split("Beyond this machine, a model and no measurement:").nth(1).expect("a prediction");
    let (warned, told) = (model.find("Two points and two parameters"), model.find(" by processors: "));
    assert!(warned.is_some() && warned < told, "{model}");
}
