//! Cases with a name: every divergence from the server that there ever was, and what chance finds too
//! rarely.

use bson::{Bson, DateTime, Decimal128, Document, doc};

use crate::generate::Case;

fn case(state: Document, patch: Document) -> Case {
    Case { state, patch, filters: Vec::new() }
}

fn filtered(state: Document, patch: Document, filter: Document) -> Case {
    Case { state, patch, filters: vec![filter] }
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn nan(bits: u64) -> Bson {
    Bson::Double(f64::from_bits(bits))
}

/// A zero with a coefficient beyond 34 digits.
fn odd_decimal() -> Bson {
    Bson::Decimal128(Decimal128::from_bytes(
        [0xff; 15].into_iter().chain([0x6b]).collect::<Vec<_>>().try_into().unwrap(),
    ))
}

fn nested(levels: usize) -> Bson {
    (0..levels).fold(Bson::Int32(1), |inner, _| doc! {"a": inner}.into())
}

/// What once came out differently here and on the server.
pub(crate) fn regressions() -> Vec<(&'static str, Case)> {
    let ties: Vec<Bson> = (0..40).map(|at| doc! {"score": at % 3, "player": at}.into()).collect();
    let kinds: Vec<Bson> =
        (0..17).map(|at| if at % 2 == 0 { Bson::Int32(0) } else { Bson::Double(0.0) }).collect();
    vec![
        (
            "a root name that begins with $ cannot be created",
            case(doc! {}, doc! {"$set": {"$x": 1}}),
        ),
        (
            "a root name that begins with $ can be left alone",
            case(doc! {"$x": 1}, doc! {"$inc": {"$x": 0}, "$set": {"a": 1}}),
        ),
        (
            "popping and pulling do not look at the root's names",
            case(doc! {"$x": [0], "$y": [1]}, doc! {"$pop": {"$x": 1}, "$pull": {"$y": 1}}),
        ),
        (
            "removing a field does not look at its neighbours",
            case(doc! {"$x": [], "a": 0}, doc! {"$unset": {"a": ""}}),
        ),
        (
            "a new decimal keeps its bytes, however odd",
            case(doc! {}, doc! {"$inc": {"a": odd_decimal()}}),
        ),
        (
            "sorting many elements moves equal ones like the server does",
            case(doc! {"a": ties}, doc! {"$push": {"a": {"$each": [], "$sort": {"score": -1}}}}),
        ),
        (
            "sorting equal numbers of two types",
            case(doc! {"a": kinds}, doc! {"$push": {"a": {"$each": [], "$sort": 1}}}),
        ),
        (
            "renaming onto an equal value takes the new bytes",
            case(doc! {"a": 0_i64, "b": 0}, doc! {"$rename": {"b": "a"}}),
        ),
        (
            "the bits of a decimal with a fraction",
            case(
                doc! {"a": [decimal("5.5"), decimal("4.5"), decimal("NaN"), decimal("1E+30"), decimal("26E-712")]},
                doc! {"$pull": {"a": {"$bitsAllClear": [0]}}},
            ),
        ),
        (
            "a long path that does not exist is removed",
            case(doc! {}, doc! {"$unset": {vec!["a"; 5_000].join("."): 1}}),
        ),
        (
            "renaming looks at an index modulo 256",
            case(doc! {"a": [1]}, doc! {"$rename": {"a.65536": "b"}}),
        ),
        (
            "renaming looks at an index modulo 256, to no effect",
            case(doc! {"a": [{}]}, doc! {"$rename": {"a.256.c": "b"}}),
        ),
        (
            "an index beyond 32 bits is a name",
            case(doc! {"a": [{"c": 1}]}, doc! {"$pop": {"a.4294967296.c": 1}}),
        ),
        ("the largest index", case(doc! {"a": [{"c": 1}]}, doc! {"$pop": {"a.4294967295.c": 1}})),
        (
            "adding to not-a-number looks at the root's names",
            case(doc! {"$db": f64::NAN}, doc! {"$inc": {"$db": 0}}),
        ),
        (
            "pushing what is sliced off again still looks at the root's names",
            case(doc! {"$db": []}, doc! {"$push": {"$db": {"$each": [null], "$slice": 0}}}),
        ),
        (
            "renaming onto an equal value looks at the root's names",
            case(doc! {"a": "1", "$id": "1"}, doc! {"$rename": {"a": "$id"}}),
        ),
        (
            "renaming nothing does not look at the root's names",
            case(doc! {"$id": "1"}, doc! {"$rename": {"a": "$id"}}),
        ),
        (
            "what a NaN carries along survives in a decimal",
            case(
                doc! {"a": decimal("1"), "b": decimal("2"), "c": decimal("3"), "d": nan(0xfff8_0000_0000_0001)},
                doc! {
                    "$mul": {"a": nan(0xfff8_f3c9_492f_371d), "b": nan(0x7fff_ffff_ffff_ffff)},
                    "$inc": {"c": nan(0x7ff0_0000_0000_0001), "d": decimal("1")},
                },
            ),
        ),
        (
            "an empty pattern matches every text",
            case(doc! {"a": ["", 1]}, doc! {"$pull": {"a": {"$regex": ""}}}),
        ),
        (
            "a $ before the last newline matches",
            case(doc! {"a": ["b\n", "b", "bc"]}, doc! {"$pull": {"a": {"$regex": "b$"}}}),
        ),
    ]
}

/// What random cases reach too rarely.
pub(crate) fn corners() -> Vec<(&'static str, Case)> {
    let many: Vec<Bson> = (0..300).map(|at| Bson::Int32(at * 7919 % 101)).collect();
    let long_path = vec!["a"; 201].join(".");
    vec![
        ("no operators in an operator", case(doc! {"a": 1}, doc! {"$set": {}})),
        ("an operator without a document", case(doc! {"a": 1}, doc! {"$set": 1})),
        ("an unknown operator", case(doc! {"a": 1}, doc! {"$pushAll": {"a": [1]}})),
        ("an empty path", case(doc! {"": 1}, doc! {"$set": {"": 2}})),
        ("a path that ends in a dot", case(doc! {}, doc! {"$set": {"a.": 2}})),
        ("the positional operator", case(doc! {"a": [1]}, doc! {"$set": {"a.$": 2}})),
        ("a padded index", case(doc! {"a": [1, 2]}, doc! {"$set": {"a.01": 3}})),
        ("a padded index beyond the end", case(doc! {"a": [1]}, doc! {"$set": {"a.003": 3}})),
        (
            "an index beyond 64 bits",
            case(doc! {"a": [1]}, doc! {"$unset": {"a.99999999999999999999": 1}}),
        ),
        ("an index far out", case(doc! {"a": [1]}, doc! {"$set": {"a.2000000000": 1}})),
        ("an index one too far out", case(doc! {"a": [1]}, doc! {"$set": {"a.1500002": 1}})),
        (
            "a position far out",
            case(doc! {"a": [1]}, doc! {"$push": {"a": {"$each": [2], "$position": i64::MAX}}}),
        ),
        (
            "the smallest slice",
            case(doc! {"a": [1]}, doc! {"$push": {"a": {"$each": [2], "$slice": i64::MIN}}}),
        ),
        ("a hundred and eighty levels", case(doc! {}, doc! {"$set": {"a": nested(179)}})),
        ("one level too many", case(doc! {}, doc! {"$set": {"a": nested(180)}})),
        (
            "levels by renaming",
            case(doc! {"a": nested(178), "b": {"c": {}}}, doc! {"$rename": {"a": "b.c.d"}}),
        ),
        ("levels by pushing", case(doc! {"a": []}, doc! {"$push": {"a": nested(178)}})),
        (
            "levels by pushing one too many",
            case(doc! {"a": []}, doc! {"$push": {"a": nested(179)}}),
        ),
        ("a long path that creates", case(doc! {}, doc! {"$set": {vec!["a"; 180].join("."): 1}})),
        ("a path that is too long", case(doc! {}, doc! {"$set": {long_path.clone(): 1}})),
        ("a path that is too long, removed", case(doc! {}, doc! {"$unset": {long_path: 1}})),
        (
            "three hundred elements sorted",
            case(doc! {"a": many.clone()}, doc! {"$push": {"a": {"$each": [], "$sort": -1}}}),
        ),
        (
            "a set of many",
            case(doc! {"a": many.clone()}, doc! {"$addToSet": {"a": {"$each": many}}}),
        ),
        ("the largest int", case(doc! {"a": i32::MAX}, doc! {"$inc": {"a": 1}})),
        ("beyond the largest long", case(doc! {"a": i64::MAX}, doc! {"$inc": {"a": 1}})),
        ("the smallest long negated", case(doc! {"a": i64::MIN}, doc! {"$mul": {"a": -1}})),
        (
            "a new product",
            case(doc! {}, doc! {"$mul": {"a": -2.5, "b": decimal("1.50"), "c": 7_i64}}),
        ),
        (
            "a double into a decimal",
            case(
                doc! {"a": 0.1, "b": 8.0, "c": 1e22, "d": 5e-324},
                doc! {"$inc": {"a": decimal("0"), "b": decimal("1"), "c": decimal("1"), "d": decimal("1E-400")}},
            ),
        ),
        (
            "decimals far apart",
            case(doc! {"a": decimal("1E+6000")}, doc! {"$inc": {"a": decimal("1E-6000")}}),
        ),
        (
            "decimals beyond the largest",
            case(doc! {"a": decimal("9E+6144")}, doc! {"$mul": {"a": decimal("9")}}),
        ),
        (
            "decimals below the smallest",
            case(doc! {"a": decimal("1E-6176")}, doc! {"$mul": {"a": decimal("0.5")}}),
        ),
        (
            "infinity less infinity",
            case(doc! {"a": decimal("Infinity")}, doc! {"$inc": {"a": decimal("-Infinity")}}),
        ),
        (
            "a sum that changes nothing keeps the digits",
            case(doc! {"a": decimal("1.0")}, doc! {"$inc": {"a": decimal("0.00")}}),
        ),
        ("the sign of zero", case(doc! {"a": -0.0}, doc! {"$inc": {"a": 0.0}})),
        ("min of not a number", case(doc! {"a": 1}, doc! {"$min": {"a": f64::NAN}})),
        ("max across types", case(doc! {"a": "x"}, doc! {"$max": {"a": DateTime::from_millis(0)}})),
        (
            "bits of a long and an int",
            case(doc! {"a": 5_i64, "b": 5}, doc! {"$bit": {"a": {"xor": 1}, "b": {"or": 1_i64}}}),
        ),
        ("bits of nothing", case(doc! {}, doc! {"$bit": {"a": {"and": 7}, "b": {"or": 7_i64}}})),
        ("a rename from an array", case(doc! {"a": [{"b": 1}]}, doc! {"$rename": {"a.0.b": "c"}})),
        (
            "a rename into an array",
            case(doc! {"a": [{"b": 1}], "c": 1}, doc! {"$rename": {"c": "a.0.c"}}),
        ),
        ("a rename of nothing", case(doc! {"a": [1]}, doc! {"$rename": {"x": "a.b.c"}})),
        (
            "a rename that conflicts",
            case(doc! {"a": 1}, doc! {"$rename": {"a": "b"}, "$set": {"b.c": 1}}),
        ),
        (
            "a rename swaps nothing",
            case(doc! {"a": 1, "b": 2}, doc! {"$rename": {"a": "b", "b": "a"}}),
        ),
        (
            "on insert only, with conflict",
            case(doc! {"a": 1}, doc! {"$setOnInsert": {"a.b": 1}, "$set": {"a": 2}}),
        ),
        (
            "on insert only, beside an array",
            case(doc! {"a": 1}, doc! {"$setOnInsert": {"a.$[].b": 1}}),
        ),
        (
            "the order of new names",
            case(
                doc! {},
                doc! {"$set": {"b": 1, "a": 1, "10": 1, "9": 1, "1a": 1, "01": 1, "0": 1, "-": 1, "é": 1}},
            ),
        ),
        (
            "the order across operators",
            case(
                doc! {"z": 1},
                doc! {"$set": {"b": 1}, "$inc": {"a": 1}, "$push": {"c": 1}, "$rename": {"z": "aa"}},
            ),
        ),
        (
            "a filter that is not used",
            filtered(doc! {"a": [1]}, doc! {"$set": {"a.$[]": 2}}, doc! {"i": 1}),
        ),
        ("a filter that is missing", case(doc! {"a": [1]}, doc! {"$set": {"a.$[i]": 2}})),
        (
            "a filter that conflicts on one element",
            filtered(
                doc! {"a": [{"b": 1}, {"b": 2}]},
                doc! {"$set": {"a.$[].c": 1, "a.$[i].c": 2}},
                doc! {"i.b": 2},
            ),
        ),
        (
            "a filter that conflicts on no element",
            filtered(
                doc! {"a": [{"b": 1}]},
                doc! {"$set": {"a.$[].c": 1, "a.$[i].c": 2}},
                doc! {"i.b": 2},
            ),
        ),
        (
            "a filter about two identifiers",
            filtered(doc! {"a": [1]}, doc! {"$set": {"a.$[i]": 2}}, doc! {"i": 1, "j": 1}),
        ),
        (
            "a filter without identifier",
            filtered(doc! {"a": [1]}, doc! {"$set": {"a.$[i]": 2}}, doc! {}),
        ),
        (
            "filters below filters",
            filtered(
                doc! {"a": [{"b": [1, 2]}, {"b": [3]}]},
                doc! {"$inc": {"a.$[].b.$[i]": 10}},
                doc! {"i": {"$gt": 1}},
            ),
        ),
        (
            "pull by part of a document",
            case(doc! {"a": [{"b": 1, "c": 2}, {"b": 1}, 1]}, doc! {"$pull": {"a": {"b": 1}}}),
        ),
        (
            "pull null and missing",
            case(doc! {"a": [{"b": null}, {}, {"b": 1}, []]}, doc! {"$pull": {"a": {"b": null}}}),
        ),
        (
            "pull inside arrays of arrays",
            case(doc! {"a": [[1, 2], [3], 1]}, doc! {"$pull": {"a": {"$gte": 2}}}),
        ),
        (
            "pull by a nested index",
            case(doc! {"a": [{"b": [[5], 6]}, {"b": [5]}]}, doc! {"$pull": {"a": {"b.0": 5}}}),
        ),
        (
            "pull with everything",
            case(
                doc! {"a": [{"b": [1, 5]}, {"b": [9]}, {"c": 1}]},
                doc! {"$pull": {"a": {"$or": [{"b": {"$elemMatch": {"$gt": 3, "$lt": 7}}}, {"c": {"$exists": true}}]}}},
            ),
        ),
        (
            "pull by bits of a decimal",
            case(
                doc! {"a": [decimal("5"), decimal("5.5"), 5.5, 5.0, -1]},
                doc! {"$pull": {"a": {"$bitsAllSet": 5}}},
            ),
        ),
        (
            "pull by remainder",
            case(
                doc! {"a": [4, 4.9, decimal("4.9"), -4, f64::NAN, "4"]},
                doc! {"$pull": {"a": {"$mod": [2.5, 0]}}},
            ),
        ),
        (
            "a new array element below an index",
            case(doc! {"a": []}, doc! {"$set": {"a.2.b": 1, "a.2.a": 2}}),
        ),
        ("through a scalar", case(doc! {"a": 1}, doc! {"$set": {"a.b": 1}})),
        ("nothing through a scalar", case(doc! {"a": 1}, doc! {"$unset": {"a.b": 1}})),
        ("pop through a scalar", case(doc! {"a": 1}, doc! {"$pop": {"a.b": 1}})),
        ("pop into an array by name", case(doc! {"a": []}, doc! {"$pop": {"a.b": 1}})),
        ("references at the root", case(doc! {"$ref": "a", "$id": 1}, doc! {"$set": {"$id": 2}})),
        (
            "a reference below",
            case(doc! {}, doc! {"$set": {"a": {"$ref": "x", "$id": 1, "$db": 5}}}),
        ),
    ]
}
