//! Whether a document can be kept as it is: it can be read to its end, no name stands twice within one of its
//! documents, and every text is UTF-8. A row with a repeated name makes the server abort when it is replaced,
//! and a text that is not UTF-8 cannot be answered.

use bson::RawDocument;

use super::{
    shown::shown,
    state::{
        Malformed,
        raw::{RawValue, tag},
    },
};

/// Deepest nesting that is looked at, in levels. The server stores 200.
const DEPTH_MAX: usize = 200;

/// Names that are compared with each other as they come. More of them are sorted.
const FEW: usize = 16;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// A document has a name twice.
    #[error("`{path}` stands twice in its document; write each name once")]
    Repeated {
        /// The path of the second one.
        path: String,
    },
    /// A name, a string, code, a symbol or a pattern is not UTF-8.
    #[error("`{path}` is not UTF-8; encode it as UTF-8, or write it as binary data")]
    Text {
        /// The path.
        path: String,
    },
    /// It is not BSON.
    #[error("`{path}` cannot be read: {error}")]
    Malformed {
        /// The path of the document that cannot be read.
        path: String,
        /// What is wrong there.
        error: Malformed,
    },
    /// It nests too deep to be looked at.
    #[error("`{path}` nests deeper than {DEPTH_MAX} levels; flatten it")]
    Deep {
        /// The path, from its beginning.
        path: String,
    },
}

/// Checks a whole document.
///
/// # Errors
/// [`Unsound`] naming the path of what was found first.
pub fn check(document: &RawDocument) -> Result<(), Unsound> {
    fields(RawValue::new(tag::DOCUMENT, document.as_bytes()), DEPTH_MAX)
        .map_err(|fault| fault.found())
}

/// What was found, on the way back to the root. Rare, so it may take its time.
struct Fault {
    what: What,
    /// The names down to it, the last one first.
    path: Vec<Vec<u8>>,
}

enum What {
    Repeated,
    Text,
    Malformed(Malformed),
    Deep,
}

type Checked = Result<(), Box<Fault>>;

impl What {
    #[cold]
    fn at(self, name: &[u8]) -> Box<Fault> {
        Box::new(Fault { what: self, path: vec![name.to_vec()] })
    }
}

impl From<Malformed> for Box<Fault> {
    fn from(error: Malformed) -> Self {
        Box::new(Fault { what: What::Malformed(error), path: Vec::new() })
    }
}

impl Fault {
    fn found(mut self) -> Unsound {
        self.path.reverse();
        let path = shown(&self.path.join(&b'.'));
        match self.what {
            What::Repeated => Unsound::Repeated { path },
            What::Text => Unsound::Text { path },
            What::Malformed(error) => Unsound::Malformed { path, error },
            What::Deep => Unsound::Deep { path },
        }
    }
}

fn fields(container: RawValue<'_>, deeper: usize) -> Checked {
    let mut elements = container.elements()?;
    let mut names: [&[u8]; FEW] = [b""; FEW];
    let mut count = 0;
    // A bit for each kind of name that was there: most names need not be compared with any other.
    let mut kinds: u64 = 0;
    while let Some(element) = elements.next()? {
        let name = element.name;
        // The elements of an array are told apart by their places.
        if container.tag != tag::ARRAY {
            if count < FEW {
                let kind = 1 << kind(name);
                if kinds & kind != 0 && names[..count].contains(&name) {
                    return Err(What::Repeated.at(name));
                }
                kinds |= kind;
                names[count] = name;
            }
            count += 1;
        }
        if std::str::from_utf8(name).is_err() {
            return Err(What::Text.at(name));
        }
        value(element.value, deeper).map_err(|mut fault| {
            fault.path.push(name.to_vec());
            fault
        })?;
    }
    if count > FEW { many(container) } else { Ok(()) }
}

/// A number below 64 that is mostly different for different names.
fn kind(name: &[u8]) -> u32 {
    let end = |byte: Option<&u8>| byte.map_or(0, |byte| u32::from(*byte));
    (end(name.first()) + 5 * end(name.last()) + 11 * name.len() as u32) % 64
}

/// Looks for a name that stands twice among many.
fn many(document: RawValue<'_>) -> Checked {
    let mut names = Vec::new();
    let mut elements = document.elements()?;
    while let Some(element) = elements.next()? {
        names.push(element.name);
    }
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(What::Repeated.at(pair[0])),
        None => Ok(()),
    }
}

fn value(value: RawValue<'_>, deeper: usize) -> Checked {
    let text = |text: &[u8]| match std::str::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(Box::new(Fault { what: What::Text, path: Vec::new() })),
    };
    match value.tag {
        tag::STRING | tag::CODE | tag::SYMBOL => text(value.text()),
        tag::DOCUMENT | tag::ARRAY => within(value, deeper),
        tag::REGEX => {
            let (pattern, options) = value.regex();
            text(pattern)?;
            text(options)
        }
        tag::CODE_WITH_SCOPE => {
            let (code, scope) = value.code_with_scope()?;
            text(code.text())?;
            within(scope, deeper)
        }
        // The name of a collection, and an ObjectId.
        tag::DB_POINTER => text(value.bytes.get(4..value.bytes.len() - 13).unwrap_or_default()),
        tag::BOOLEAN if value.bytes != [0] && value.bytes != [1] => {
            Err(Malformed { at: 0, what: "a boolean is neither true nor false" }.into())
        }
        _ => Ok(()),
    }
}

fn within(container: RawValue<'_>, deeper: usize) -> Checked {
    match deeper.checked_sub(1) {
        Some(deeper) => fields(container, deeper),
        None => Err(Box::new(Fault { what: What::Deep, path: Vec::new() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        document::{Body, Class, Document, FoldLimits, Outcome},
        event::EventKey,
        state::State,
    };
    use bson::{RawDocumentBuf, doc, raw::cstr, rawdoc};

    /// A document of elements as they are given: type, name, value.
    fn raw(elements: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for (tag, name, value) in elements {
            bytes.push(*tag);
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(value);
        }
        bytes.push(0);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn string(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u32 + 1).to_le_bytes(), text, &[0]].concat()
    }

    #[track_caller]
    fn found(bytes: Vec<u8>) -> String {
        check(&RawDocumentBuf::from_bytes(bytes).unwrap()).unwrap_err().to_string()
    }

    const INT: [u8; 4] = [1, 0, 0, 0];

    #[test]
    fn what_every_driver_writes_is_sound() {
        let wide: bson::Document = (0..1_000).map(|at| (format!("f{at}"), at.into())).collect();
        let code =
            bson::JavaScriptCodeWithScope { code: "é".into(), scope: doc! { "a": 1, "b": 2 } };
        let all = doc! {
            "a": { "a": [1, { "a": 1 }, "é"], "b": {} }, "b": wide, "": 1, "é": bson::Bson::Symbol("x".into()),
            "code": code, "true": true, "regex": bson::Regex { pattern: "é".to_owned().try_into().unwrap(), options: "i".to_owned().try_into().unwrap() },
        };
        assert_eq!(check(&RawDocumentBuf::try_from(&all).unwrap()), Ok(()));
    }

    #[test]
    fn a_name_that_stands_twice_is_found_wherever_it_is() {
        let twice = raw(&[(0x10, b"x", &INT), (0x10, b"y", &INT), (0x10, b"x", &INT)]);
        assert!(found(twice.clone()).starts_with("`x` stands twice"), "{}", found(twice));
        let list = raw(&[(0x10, b"0", &INT), (0x03, b"1", &twice)]);
        assert!(found(raw(&[(0x03, b"a", &raw(&[(0x04, b"b", &list)]))])).starts_with("`a.b.1.x`"));
        let scope = [&string(b"f")[..], &twice].concat();
        let code = [&(scope.len() as u32 + 4).to_le_bytes(), &scope[..]].concat();
        assert!(found(raw(&[(0x0F, b"c", &code)])).starts_with("`c.x` stands twice"));
        // Among so many that they are sorted, and on both sides of where that begins.
        for count in [15, 16, 17, 18, 5_000] {
            let names: Vec<String> = (0..count).map(|at| format!("f{at}")).collect();
            for again in [0, count / 2, count - 1] {
                let mut all: Vec<(u8, &[u8], &[u8])> =
                    names.iter().map(|name| (0x10, name.as_bytes(), &INT[..])).collect();
                all.push((0x10, names[again].as_bytes(), &INT));
                let expected = format!("`f{again}` stands twice");
                assert!(found(raw(&all)).starts_with(&expected), "{count} {again}");
            }
        }
    }

    /// What an event brings is looked through, whatever of it the fold needs; and `seen` is a clock.
    #[test]
    fn an_event_that_brings_what_is_unsound_is_poison() {
        let twice = raw(&[(0x10, b"x", &INT), (0x10, b"x", &INT)]);
        let twice = RawDocumentBuf::from_bytes(twice).unwrap();
        let bad = RawDocumentBuf::from_bytes(raw(&[(0x02, b"x", &string(b"\xff"))])).unwrap();
        let clients: bson::Document = (0..10_001).map(|at| (format!("c{at}"), 1.into())).collect();
        let clients = RawDocumentBuf::try_from(&clients).unwrap();
        for (name, value, expected) in [
            ("meta", rawdoc! { "a": [twice.clone()] }, "`meta.a.0.x` stands twice"),
            ("anything", twice.clone(), "`anything.x` stands twice"),
            ("patch", rawdoc! { "$set": { "a": twice } }, "`patch.$set.a.x` stands twice"),
            ("meta", bad, "`meta.x` is not UTF-8"),
            ("seen", rawdoc! { "a": "b" }, "`seen`: the count of client `a`"),
            ("seen", rawdoc! { "a.b": 1 }, "`seen`: `a.b` is no client name"),
            ("seen", rawdoc! { "a": -1 }, "`seen`: the count of client `a`"),
            ("seen", clients, "`seen` names 10001 clients"),
        ] {
            let mut event = rawdoc! {
                "_id": { "d": "a", "s": 2 }, "client": "c", "op": "update",
                "at": bson::DateTime::from_millis(0),
            };
            if name != "patch" {
                event.append(cstr!("patch"), rawdoc! {});
            }
            event.append(bson::raw::CString::try_from(name.to_owned()).unwrap(), value);
            let key = EventKey::from_event(&event).unwrap();
            let mut document = Document::new(key.document.clone());
            (document.version, document.body) =
                (1, Body::Live(State::from_raw(&rawdoc! {}).unwrap()));
            match document.offer(&key, &event, false, &FoldLimits::default()) {
                Outcome::Poison(mark) => {
                    assert_eq!(mark.class, Class::BadEvent, "{name}");
                    assert!(mark.reason.starts_with(expected), "{}", mark.reason);
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_row_that_is_unsound_is_not_ours() {
        let twice = raw(&[(0x10, b"x", &INT), (0x10, b"x", &INT)]);
        let state = RawDocumentBuf::from_bytes(twice).unwrap();
        let row = rawdoc! { "_id": 1, "version": 1, "clock": { "a": 1 }, "state": state };
        let error = Document::from_raw(&row).unwrap_err();
        assert!(error.to_string().starts_with("`state.x` stands twice"), "{error}");
    }

    #[test]
    fn elements_of_an_array_are_told_apart_by_their_places() {
        let list = raw(&[(0x10, b"0", &INT), (0x10, b"0", &INT)]);
        let document = RawDocumentBuf::from_bytes(raw(&[(0x04, b"a", &list)])).unwrap();
        assert_eq!(check(&document), Ok(()));
    }

    #[test]
    fn a_text_that_is_not_utf_8_is_found_wherever_it_is() {
        let bad = b"\xff\xfe\xfd";
        let surrogate = b"\xed\xa0\x80";
        let pointer = [&string(bad)[..], &[7; 12]].concat();
        let regex = |pattern: &[u8], options: &[u8]| [pattern, &[0], options, &[0]].concat();
        for (tag, value) in [
            (0x02, string(bad)),
            (0x02, string(surrogate)),
            (0x0D, string(bad)),
            (0x0E, string(bad)),
            (0x0C, pointer),
            (0x0B, regex(bad, b"")),
            (0x0B, regex(b"", bad)),
            (0x03, raw(&[(0x10, bad, &INT)])),
        ] {
            let message = found(raw(&[(0x03, b"a", &raw(&[(tag, b"b", &value)]))]));
            assert!(message.starts_with("`a.b") && message.contains("UTF-8"), "{tag}: {message}");
        }
    }

    #[test]
    fn what_cannot_be_read_to_its_end_is_found() {
        let cut = raw(&[(0x10, b"a", &[1, 0])]);
        assert!(found(raw(&[(0x03, b"a", &cut)])).contains("`a` cannot be read"));
        assert!(found(raw(&[(0x08, b"a", &[2])])).contains("boolean"));
        let deep = (0..300).fold(rawdoc! {}, |inner, _| rawdoc! { "a": inner });
        assert!(matches!(check(&deep), Err(Unsound::Deep { .. })));
        let deep = (0..150).fold(rawdoc! {}, |inner, _| rawdoc! { "a": inner });
        assert_eq!(check(&deep), Ok(()));
    }
}
