//! Events made to do harm: every one is applied or refused as poison, without a panic, without a trace
//! in the state, and within the memory that the documentation of `Limits` states.

mod bytes;

use std::fs;
use std::sync::{Mutex, MutexGuard};

use alluvium::model::diff::diff;
use alluvium::model::patch::{PatchError, apply, merge};
use alluvium::model::state::{Limits, State};
use bson::DateTime;

use bytes::{Value, array, binary, document, int, nested, null, pattern, string};

const MIB: usize = 1 << 20;

/// What the process may take at its peak, beside what it held before: what `Limits` says, the tests' own bytes included.
const MEMORY_BYTES_MAX: usize = 512 * MIB;

/// Limits on work that are reached soon in a build without optimisation.
const BRIEF: Limits = Limits {
    state_bytes_max: 15 * MIB,
    depth_max: 179,
    padding_max: 1_500_000,
    steps_max: 3_000_000,
};

/// One test at a time: the peak of memory is that of the process.
static ONE: Mutex<()> = Mutex::new(());

struct Alone {
    #[expect(dead_code, reason = "held until the test ends")]
    turn: MutexGuard<'static, ()>,
    /// What the process held when the test began: the allocator keeps what earlier ones had, for each thread.
    before: usize,
}

fn alone() -> Alone {
    let turn = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The peak begins anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    Alone { turn, before: held("VmRSS:") }
}

/// A line of what the kernel tells of this process's memory, in bytes.
fn held(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

impl Drop for Alone {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let peak = held("VmHWM:").saturating_sub(self.before);
            println!("peak {} MiB", peak / MIB);
            assert!(peak < MEMORY_BYTES_MAX, "{} MiB at the peak", peak / MIB);
        }
    }
}

fn patched(
    limits: &Limits,
    state: Value,
    patch: Value,
    filters: Vec<Value>,
) -> Result<State, PatchError> {
    let before = state.into_document();
    let patch = patch.into_document();
    let array = array(filters).into_array();
    let filters = if array.is_empty() { None } else { Some(&*array) };
    let mut state = State::from_raw(&before).unwrap();
    let outcome = apply(&mut state, &patch, filters, DateTime::from_millis(0), limits);
    match outcome {
        Ok(()) => assert!(state.bytes() <= limits.state_bytes_max),
        Err(ref error) => {
            assert!(error.to_string().len() < 2_000, "the message is too long");
            assert!(state.to_raw() == before, "a refused patch left a trace: {error}");
        }
    }
    outcome.map(|()| state)
}

#[track_caller]
fn refused_with(limits: &Limits, state: Value, patch: Value, filters: Vec<Value>) -> PatchError {
    patched(limits, state, patch, filters).map(drop).unwrap_err()
}

#[track_caller]
fn refused(state: Value, patch: Value) -> PatchError {
    refused_with(&Limits::default(), state, patch, Vec::new())
}

fn one(operator: &str, path: &str, argument: Value) -> Value {
    document([(operator, document([(path, argument)]))])
}

fn each(operator: &str, path: &str, values: impl IntoIterator<Item = Value>) -> Value {
    one(operator, path, document([("$each", array(values))]))
}

fn state(name: &str, value: Value) -> Value {
    document([(name, value)])
}

fn nothing() -> Value {
    document::<&str>([])
}

/// An array of as many small values as fit.
fn full_array() -> Value {
    array((0..1_400_000).map(|_| null()))
}

#[test]
fn values_that_nest_deeper_than_any_stack_are_refused() {
    let _alone = alone();
    let deep = || nested(300_000);
    let number = || state("a", int(1));
    let list = || state("a", array([nested(3)]));
    for operator in ["$set", "$max"] {
        assert!(refused(number(), one(operator, "a", deep())).too_large(), "{operator}");
    }
    assert!(refused(list(), one("$push", "a", deep())).too_large());
    assert!(refused(list(), one("$addToSet", "a", deep())).too_large());
    refused(list(), each("$addToSet", "a", [deep(), deep()]));
    refused(list(), one("$pullAll", "a", array([deep(), deep()])));
    refused(list(), one("$pull", "a", document([("$in", array([deep(), deep()]))])));
    // What is only compared with the state goes no deeper than the state does.
    patched(&Limits::default(), list(), one("$pull", "a", deep()), Vec::new()).unwrap();
    patched(&Limits::default(), list(), one("$max", "a", deep()), Vec::new()).unwrap();
}

#[test]
fn conditions_that_nest_too_deep_are_refused() {
    let _alone = alone();
    let list = || state("a", array([int(1)]));
    let wrap = |name: &str, levels: usize| {
        (0..levels).fold(document([("$gt", int(1))]), |inner, _| document([(name, inner)]))
    };
    for name in ["$not", "$elemMatch"] {
        refused(list(), one("$pull", "a", document([("b", wrap(name, 1_000))])));
    }
    let ors =
        (0..1_000).fold(document([("b", int(1))]), |inner, _| document([("$or", array([inner]))]));
    refused(list(), one("$pull", "a", ors));
}

#[test]
fn a_merge_that_nests_too_deep_is_refused() {
    let _alone = alone();
    let before = nothing().into_document();
    let mut folded = State::from_raw(&before).unwrap();
    let error = merge(&mut folded, &nested(300_000).into_document(), &Limits::default());
    assert!(error.unwrap_err().too_large());
    assert_eq!(folded.to_raw(), before);
}

#[test]
fn the_difference_of_documents_that_nest_too_deep_is_their_value() {
    let _alone = alone();
    let (before, after) = (nested(300_000).into_document(), nested(300_001).into_document());
    assert!(!diff(&before, &after).is_empty());
}

#[test]
fn paths_that_are_too_long_create_nothing() {
    let _alone = alone();
    let path = vec!["a"; 30_000].join(".");
    assert!(refused(nothing(), one("$set", &path, int(1))).too_large());
    assert!(refused(nothing(), one("$push", &path, int(1))).too_large());
    assert!(refused(state("b", int(1)), one("$rename", "b", string(&path))).too_large());
    patched(&Limits::default(), nothing(), one("$unset", &path, int(1)), Vec::new()).unwrap();
    patched(&Limits::default(), nothing(), one("$rename", &path, string("b")), Vec::new()).unwrap();
    let longest = vec!["a"; 179].join(".");
    patched(&Limits::default(), nothing(), one("$set", &longest, int(1)), Vec::new()).unwrap();
}

#[test]
fn a_position_far_out_appends() {
    let _alone = alone();
    for position in [i64::MAX, 1 << 40, 2_000_000_000] {
        let position = Value(0x12, position.to_le_bytes().to_vec());
        let clauses = document([("$each", array([int(2)])), ("$position", position)]);
        let list = state("a", array([int(1)]));
        let after = patched(&Limits::default(), list, one("$push", "a", clauses), Vec::new());
        assert_eq!(after.unwrap().to_raw(), state("a", array([int(1), int(2)])).into_document());
    }
}

#[test]
fn an_index_far_out_is_refused_and_the_furthest_is_not() {
    let _alone = alone();
    let list = || state("a", array([int(1)]));
    for index in ["2000000000", "1500002", "4294967295"] {
        assert!(refused(list(), one("$set", &format!("a.{index}"), int(1))).too_large(), "{index}");
    }
    patched(&Limits::default(), list(), one("$set", "a.1500001", int(1)), Vec::new()).unwrap();
}

#[test]
fn many_arrays_that_grow_far_are_refused_together() {
    let _alone = alone();
    let names: Vec<String> = (0..40).map(|at| format!("n{at}")).collect();
    let lists = document(names.iter().map(|name| (name, array([]))));
    let far = names.iter().map(|name| (format!("{name}.1500000"), int(1)));
    assert!(refused(lists, document([("$set", document(far))])).too_large());
}

#[test]
fn a_document_beyond_its_size_is_refused() {
    let _alone = alone();
    let text = string(&"x".repeat(16 * MIB));
    assert!(refused(nothing(), one("$set", "a", text.clone())).too_large());
    assert!(refused(state("a", array([])), one("$push", "a", text)).too_large());
    // A kilobyte for each of a million elements.
    let kilobyte = string(&"x".repeat(1_000));
    assert!(refused(state("a", full_array()), one("$set", "a.$[]", kilobyte.clone())).too_large());
    let many = full_array();
    let inner = document([("$each", array((0..10).map(|_| int(1))))]);
    let lists = array((0..100_000).map(|_| array([])));
    patched(&Limits::default(), state("a", lists), one("$push", "a.$[]", inner), Vec::new())
        .unwrap();
    let parts = array((0..15_000).map(|_| kilobyte.clone()));
    assert!(refused(state("b", many), one("$set", "a", parts)).too_large());
}

#[test]
fn a_patch_of_a_million_paths_is_read_within_bounds() {
    let _alone = alone();
    let paths = || (0..1_300_000).map(|at| (format!("{at:07}"), null()));
    let pull = document([("$pull", document(paths()))]);
    patched(&Limits::default(), nothing(), pull, Vec::new()).unwrap();
    let set = document([("$set", document(paths().take(10_000)))]);
    let error = refused_with(&BRIEF, nothing(), set, Vec::new());
    assert!(matches!(error, PatchError::TooMuchWork { .. }), "{error}");
}

#[test]
fn arrays_of_a_million_elements_are_edited_within_bounds() {
    let _alone = alone();
    let limits = Limits::default();
    let full = || state("a", full_array());
    let sort = document([("$each", array([])), ("$sort", int(-1)), ("$slice", int(-700_000))]);
    patched(&limits, full(), one("$push", "a", sort), Vec::new()).unwrap();
    let numbers = || (0..100_000).map(int);
    patched(&limits, full(), one("$pullAll", "a", array(numbers())), Vec::new()).unwrap();
    patched(&limits, state("a", array([])), each("$addToSet", "a", numbers()), Vec::new()).unwrap();
    let front = document([("$each", array(numbers())), ("$position", int(0))]);
    patched(&limits, state("a", array(numbers())), one("$push", "a", front), Vec::new()).unwrap();
}

#[test]
fn a_path_of_indexes_among_names_that_are_numbers_ends_at_the_limit_of_steps() {
    let _alone = alone();
    // Every level can be read as an index and as a name: 2 to the power of 60 ways.
    let levels = (0..85).fold(int(0), |inner, _| document([("0", array([inner]))]));
    let path = vec!["0"; 60].join(".");
    let list = || state("a", array([levels.clone()]));
    let condition = document([(path.as_str(), int(7))]);
    let error = refused_with(&BRIEF, list(), one("$pull", "a", condition), Vec::new());
    assert!(matches!(error, PatchError::TooMuchWork { .. }), "{error}");
    let filter = document([(format!("i.{path}"), int(7))]);
    let error = refused_with(&BRIEF, list(), one("$set", "a.$[i]", int(1)), vec![filter]);
    assert!(matches!(error, PatchError::TooMuchWork { .. }), "{error}");
}

#[test]
fn work_that_multiplies_ends_at_the_limit_of_steps() {
    let _alone = alone();
    let too_much = |state: Value, patch: Value, filters: Vec<Value>| {
        let error = refused_with(&BRIEF, state, patch, filters);
        assert!(matches!(error, PatchError::TooMuchWork { .. }), "{error}");
    };
    let fields = || document((0..1_000).map(|at| (format!("f{at}"), int(at))));
    let wide = || state("a", array((0..200).map(|_| fields())));
    let keys = document((0..1_000).map(|at| (format!("x{at}"), int(1))));
    let sort = document([("$each", array([])), ("$sort", keys)]);
    too_much(wide(), one("$push", "a", sort), Vec::new());
    let conditions = || array((0..1_000).map(|at| document([(format!("x{at}"), int(1))])));
    too_much(wide(), one("$pull", "a", document([("$or", conditions())])), Vec::new());
    let filter =
        document([("$nor", array((0..1_000).map(|at| document([(format!("i.x{at}"), int(1))]))))]);
    too_much(wide(), one("$set", "a.$[i].y", int(1)), vec![filter]);
    let texts = state("a", array((0..10).map(|_| string(&"b".repeat(100_000)))));
    let patterns = array((0..10).map(|at| pattern(&format!("a{at}"))));
    too_much(texts, one("$pull", "a", document([("$in", patterns)])), Vec::new());
    let numbers = state("a", array((0..100).map(int)));
    let mask = document([("$bitsAllClear", binary(&vec![0; MIB]))]);
    too_much(numbers, one("$pull", "a", mask), Vec::new());
}

#[test]
fn patterns_are_bounded_in_number_and_size() {
    let _alone = alone();
    let list = || state("a", array([string("x")]));
    let some = |count: usize| document([("$in", array((0..count).map(|_| pattern("x"))))]);
    patched(&Limits::default(), list(), one("$pull", "a", some(64)), Vec::new()).unwrap();
    refused(list(), one("$pull", "a", some(65)));
    refused(
        list(),
        one("$pull", "a", document([("$regex", string("((a{1,999}){1,999}){1,999}"))])),
    );
    refused(list(), one("$pull", "a", document([("$regex", string(&"(".repeat(100_000)))])));
    // Each as large as may be.
    let large = array((0..64).map(|at| pattern(&format!("[^x]{{1,350}}{at}"))));
    let pull = one("$pull", "a", document([("$in", large)]));
    patched(
        &Limits::default(),
        state("a", array([string(&"y\u{fe}".repeat(5_000))])),
        pull,
        Vec::new(),
    )
    .unwrap();
    // Together over a patch, wherever they stand.
    let pulls = document((0..65).map(|at| (format!("a{at:02}"), pattern("x"))));
    refused(list(), document([("$pull", pulls)]));
}

#[test]
fn a_wide_mask_of_bits_takes_no_more_than_itself() {
    let _alone = alone();
    let list = state("a", array([int(1), binary(&[1])]));
    let mask = document([("$bitsAllSet", binary(&vec![0xFF; 15 * MIB]))]);
    patched(&Limits::default(), list, one("$pull", "a", mask), Vec::new()).unwrap();
}

#[test]
fn many_filters_are_found_without_looking_at_all_of_them() {
    let _alone = alone();
    let count = 100_000;
    let filters = (0..count).map(|at| document([(format!("f{at}"), int(1))])).collect();
    let paths = (0..count).map(|at| (format!("a.$[f{at}].x{at}"), int(1)));
    let list = state("a", array([]));
    patched(&Limits::default(), list, document([("$set", document(paths))]), filters).unwrap();
    let options = (0..200_000).map(|_| ("$options", string(""))).chain([("$regex", string("x"))]);
    let texts = state("a", array([string("x")]));
    patched(&Limits::default(), texts, one("$pull", "a", document(options)), Vec::new()).unwrap();
}

#[test]
fn patterns_that_would_take_for_ever_end_at_a_limit() {
    let _alone = alone();
    let pulled = |pattern: &str, text: &str| {
        let list = state("a", array([string(text)]));
        let pull = one("$pull", "a", document([("$regex", string(pattern))]));
        let begun = std::time::Instant::now();
        let outcome = patched(&Limits::default(), list, pull, Vec::new()).map(drop);
        println!("{:?} {}", begun.elapsed(), shortened(pattern));
        outcome
    };
    let a = |count: usize| "a".repeat(count);
    for pattern in ["(a+)+$", "(a|aa)+$", "(a*)*b$", "(?:a?){40}a{40}$", "(a|a|a)*c$"] {
        let error = pulled(pattern, &(a(60) + "b,c")).unwrap_err();
        assert!(matches!(error, PatchError::Pattern { .. }), "{pattern}: {error}");
    }
    // Each place costs little, and there are many, or each looks through all that follows.
    for pattern in
        ["a++b", "(?=a*b)c", "(?>a+)b", "a*b", "(a{0,2000})\\1b", "(?:a{3}){5000}b", "a{60000}b"]
    {
        let error = pulled(pattern, &a(14 * MIB)).unwrap_err();
        assert!(matches!(error, PatchError::TooMuchWork { .. }), "{pattern}: {error}");
    }
    // What has that many branches open takes memory, the more the more groups there are.
    let groups = format!("^(?:a{}|c)*$", "()".repeat(3_000));
    pulled(&groups, &a(3_000)).unwrap_err();
    // As deep as may be, on a small stack.
    let nested = format!("{}a{}", "(".repeat(249), ")".repeat(249));
    pulled(&nested, &a(3)).unwrap();
    refused(state("a", array([string("a")])), one("$pull", "a", pattern(&format!("({nested})"))));
}

fn shortened(pattern: &str) -> &str {
    &pattern[..pattern.len().min(40)]
}
