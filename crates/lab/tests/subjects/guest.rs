//! The WireGuard of other kernels.

use evaluation::{Machine, Run, report};
use lab::Kernel;
use lab::subject::{Place, weigh};

#[test]
fn the_module_of_another_kernel_works_and_weighs_something() {
    let kernel = Kernel::V6_12;
    let weight = weigh(kernel).unwrap();
    println!("{weight:?}");
    assert!(weight.release.starts_with(kernel.series()), "{weight:?}");
    assert_eq!(weight.place, Place::Module);
    assert_eq!(weight.carried, 200_000);
    let (file, memory, all) = (weight.file.unwrap(), weight.memory.unwrap(), weight.memory_with_needed.unwrap());
    assert!(file > 50_000 && memory > 50_000 && all > memory && weight.needed > 2, "{weight:?}");
    assert!(weight.loads.len() == 3 && weight.loads.iter().all(|load| load.as_micros() > 50), "{weight:?}");
    // Its interfaces go with it: whoever exchanges it has to make them anew.
    assert_eq!(weight.interfaces_survive, Some(false));

    // A run keeps all of it, and its report says what an emulator can tell.
    let machine = Machine { processors: 1, ..Machine::default() };
    let mut run = Run::new("kernels", 0, 1, machine);
    run.kernels.insert(kernel.name().to_owned(), weight.record(7));
    let read = Run::parse("run", &run.text()).unwrap();
    assert_eq!(read, run);
    let kept = &read.kernels["6.12"];
    assert!(kept.emulated && kept.failure.is_none() && kept.place == "kernel module", "{kept:?}");
    assert_eq!((kept.file, kept.memory, kept.memory_with_needed), (Some(file), Some(memory), Some(all)));
    let told = report::summary(&read, 200);
    assert!(told.contains(&weight.release) && told.contains("never how fast"), "{told}");
}
