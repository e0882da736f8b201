//! A model of the update operators that the simulation's writers use, on decoded documents: short
//! enough to be seen to be right, and it knows no others.

use bson::{Bson, DateTime, Document, RawDocumentBuf};

use super::replay::Replay;

/// Holds the state of one document.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    state: Document,
}

impl Replay for Reference {
    async fn begin(&mut self, _id: &str) {
        self.state.clear();
    }

    async fn put(&mut self, state: &Document) {
        self.state = state.clone();
    }

    async fn patch(
        &mut self,
        patch: &Document,
        array_filters: Option<&[Bson]>,
        _at: DateTime,
    ) -> Result<(), String> {
        assert!(array_filters.is_none(), "the model knows no array filters");
        let mut state = self.state.clone();
        for (operator, fields) in patch {
            for (field, value) in fields.as_document().ok_or("an operator without fields")? {
                apply(&mut state, operator, field, value)?;
            }
        }
        self.state = state;
        Ok(())
    }

    async fn state(&mut self) -> RawDocumentBuf {
        RawDocumentBuf::try_from(&self.state).expect("a plain document")
    }
}

fn apply(state: &mut Document, operator: &str, field: &str, value: &Bson) -> Result<(), String> {
    assert!(!field.contains('.'), "the model knows no paths");
    match (operator, state.get_mut(field), value) {
        ("$set", _, value) => drop(state.insert(field, value.clone())),
        ("$unset", _, _) => drop(state.remove(field)),
        ("$inc", None, value) => drop(state.insert(field, value.clone())),
        ("$inc", Some(Bson::Int64(number)), Bson::Int64(more)) => *number += more,
        ("$push", None, value) => drop(state.insert(field, vec![value.clone()])),
        ("$push", Some(Bson::Array(array)), value) => array.push(value.clone()),
        ("$inc" | "$push", Some(found), _) => {
            return Err(format!("{operator} on {found}"));
        }
        (operator, _, _) => panic!("the model does not know {operator}"),
    }
    Ok(())
}
