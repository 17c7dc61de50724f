//! Every workload at a small size, under whatever allocator the tests run with: it ends, it counts,
//! and it comes to the same checksum twice.

use super::{ALL, Params, UnknownParam, find};

// requirement: Z3 (cells compare only if every run does the same work)
#[test]
fn every_workload_is_deterministic() {
    for workload in ALL {
        let params = Params::with(workload, workload.tiny.iter().copied()).unwrap();
        let first = (workload.run)(&params);
        let second = (workload.run)(&params);
        assert!(first.operations > 0, "{} counts no operation", workload.name);
        assert_eq!(first.operations, second.operations, "operations of {}", workload.name);
        assert_eq!(first.checksum, second.checksum, "checksum of {}", workload.name);
    }
}

#[test]
fn the_work_parameter_scales_the_operations() {
    for workload in ALL {
        let mut params = Params::with(workload, workload.tiny.iter().copied()).unwrap();
        let once = (workload.run)(&params).operations;
        params.set(workload.work, params.get(workload.work) * 3).unwrap();
        let thrice = (workload.run)(&params).operations;
        assert!(thrice > once, "{}: {once} operations, then {thrice}", workload.name);
    }
}

#[test]
fn names_are_unique_and_parameters_known() {
    for (index, workload) in ALL.iter().enumerate() {
        assert!(ALL[index + 1..].iter().all(|other| other.name != workload.name));
        assert!(workload.params.iter().any(|p| p.name == workload.work), "{}", workload.name);
        assert_eq!(find(workload.name).map(|w| w.name), Some(workload.name));
    }
    assert!(find("no-such-workload").is_none());
}

#[test]
fn an_unknown_parameter_is_refused_by_name() {
    let error = Params::with(&super::pairs::WORKLOAD, [("sizes", 1)]).unwrap_err();
    assert_eq!(error, UnknownParam { workload: "pairs", param: "sizes".into() });
    assert_eq!(error.to_string(), "workload `pairs` has no parameter `sizes`");
}
