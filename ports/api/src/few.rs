//! Maps and lists of a request that have few entries by their nature: reading stops at the first one too many, since each
//! entry takes up to thirty times as much memory as it had bytes.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// More than any of them may have: what each may have is told by its own refusal.
const ENTRIES_MAX: usize = 1_000;

struct Few<T>(PhantomData<T>);

fn one_more<E: Error>(entries: usize) -> Result<(), E> {
    match entries < ENTRIES_MAX {
        true => Ok(()),
        false => Err(E::custom(format_args!("more than {ENTRIES_MAX} entries"))),
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Few<BTreeMap<K, V>> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut map, mut read) = (BTreeMap::new(), 0);
        while let Some((key, value)) = entries.next_entry()? {
            one_more(read)?;
            read += 1;
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<Vec<T>> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            one_more(list.len())?;
            list.push(entry);
        }
        Ok(list)
    }
}

struct Given<T>(PhantomData<T>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Given<BTreeMap<K, V>> {
    type Value = Option<BTreeMap<K, V>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        map(deserializer).map(Some)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Given<Vec<T>> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        list(deserializer).map(Some)
    }
}

pub(crate) fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Few::<BTreeMap<K, V>>(PhantomData))
}

pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Few::<Vec<T>>(PhantomData))
}

pub(crate) fn map_given<'de, D, K, V>(deserializer: D) -> Result<Option<BTreeMap<K, V>>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_option(Given::<BTreeMap<K, V>>(PhantomData))
}

pub(crate) fn list_given<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_option(Given::<Vec<T>>(PhantomData))
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;

    use super::*;
    use crate::{
        errors::parse_body,
        functions::{CreateFunction, UpdateFunction},
    };

    /// A function with so many entries in one place; every other one the same, which a map would keep once.
    fn with(before: &str, entry: impl Fn(usize) -> String, after: &str, count: usize) -> Vec<u8> {
        let entries: Vec<String> = (0..count).map(|at| entry(at / 2)).collect();
        format!(
            "{{\"name\":\"a\",\"language\":\"python\",{before}{}{after}}}",
            entries.join(",")
        )
        .into_bytes()
    }

    #[test]
    fn reading_stops_at_the_first_entry_too_many() {
        let pair = |at| format!("\"K{at}\":\"v\"");
        let text = |_| "\"\"".to_owned();
        type Entry<'a> = &'a dyn Fn(usize) -> String;
        let table: [(&str, Entry, &str, &str); 5] = [
            ("\"env\":{", &pair, "}", "env"),
            ("\"secrets\":{", &pair, "}", "secrets"),
            ("\"egress\":[", &text, "]", "egress"),
            ("\"placement\":{\"labels\":[", &text, "]}", "placement.labels"),
            ("\"placement\":{\"pin\":[", &text, "]}", "placement.pin"),
        ];
        for (before, entry, after, field) in table {
            let read = |count| parse_body::<CreateFunction>(&with(before, entry, after, count));
            assert!(read(ENTRIES_MAX).is_ok(), "{field}");
            let refusal = read(ENTRIES_MAX + 1).expect_err("too many");
            assert_eq!(refusal.code.known(), Some(Code::BodyMalformed));
            assert!(
                refusal.message.contains("more than 1000 entries"),
                "{}",
                refusal.message
            );
            assert_eq!(refusal.field.as_deref(), Some(field));
        }
        let none = br#"{"env": null, "egress": null}"#;
        let update = parse_body::<UpdateFunction>(none).expect("as if they were not there");
        assert_eq!((update.env, update.egress), (None, None));
    }
}
