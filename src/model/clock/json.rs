//! Clocks as JSON: `{client: count}`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Clock, ClockError, Unsorted};
use crate::model::{
    id::{INTEGER_MAX, integral},
    shown::shown,
};

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Clock;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a clock: an object of client names and counts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Clock, A::Error> {
                let mut clock = Unsorted::default();
                while let Some((client, value)) = map.next_entry::<String, serde_json::Value>()? {
                    let count = match &value {
                        serde_json::Value::Number(number) => number.as_i64().or_else(|| {
                            number.as_f64().and_then(|f| integral(bson::RawBsonRef::Double(f)))
                        }),
                        _ => None,
                    };
                    let count = count.filter(|count| (0..=INTEGER_MAX).contains(count));
                    let count = count.ok_or_else(|| {
                        de::Error::custom(ClockError::Count {
                            client: shown(client.as_bytes()),
                            found: shown(value.to_string().as_bytes()),
                        })
                    })?;
                    clock.admit(client.into(), count).map_err(de::Error::custom)?;
                }
                clock.sorted().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
