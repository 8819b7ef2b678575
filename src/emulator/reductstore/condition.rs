//! The `when` clause of queries.
//!
//! Responsible for `{"&label":{"$eq":v}}`, `$ne`, `$and` and `$limit`, which a file client needs. The real server has
//! many more operators; here they are refused like unknown ones. Several members of one object are a conjunction,
//! evaluated in order and only as far as needed (measured: `$limit` after a comparison counts matches only).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::failure::Failure;

/// JSON that keeps the order of members, which matters in a `when` clause.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Scalar(Scalar),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A value that labels are compared with; labels that look like a number or a Boolean are one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Scalar {
    fn of_label(value: &str) -> Self {
        match (value.parse(), value.parse()) {
            (Ok(truth), _) => Self::Bool(truth),
            (_, Ok(number)) => Self::Number(number),
            _ => Self::Text(value.to_owned()),
        }
    }
}

/// A condition with the state it needs over the run of one query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition(Vec<Term>);

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Compare {
        label: String,
        operator: Operator,
        value: Scalar,
    },
    All(Vec<Condition>),
    Limit {
        left: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
}

impl Default for Condition {
    /// Holds for every record.
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Condition {
    pub(super) fn parse(json: &Json) -> Result<Self, Failure> {
        match json {
            Json::Null => Ok(Self::default()),
            Json::Object(members) => members
                .iter()
                .map(|(key, value)| parse_term(key, value))
                .collect::<Result<_, _>>()
                .map(Self),
            Json::Array(_) => Err(refused("Array type is not supported")),
            Json::Scalar(_) => Err(refused("A condition must be an object")),
        }
    }

    /// Whether the next record of a query with these labels is wanted.
    pub(super) fn holds(&mut self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter_mut().all(|term| match term {
            Term::Compare { label, operator, value } => labels.get(label).is_some_and(|actual| {
                let equal = Scalar::of_label(actual) == *value;
                equal == (*operator == Operator::Equal)
            }),
            Term::All(conditions) => conditions.iter_mut().all(|condition| condition.holds(labels)),
            Term::Limit { left } => match left.checked_sub(1) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            },
        })
    }

    /// A label that the condition compares and that isn't among these.
    pub(super) fn missing_in(&self, labels: &BTreeMap<String, String>) -> Option<&str> {
        self.0.iter().find_map(|term| match term {
            Term::Compare { label, .. } => (!labels.contains_key(label)).then_some(label.as_str()),
            Term::All(conditions) => conditions.iter().find_map(|condition| condition.missing_in(labels)),
            Term::Limit { .. } => None,
        })
    }
}

fn parse_term(key: &str, value: &Json) -> Result<Term, Failure> {
    match (key, value) {
        ("$limit", Json::Scalar(Scalar::Number(n))) if *n >= 0.0 && n.fract() == 0.0 => {
            Ok(Term::Limit { left: *n as u64 })
        }
        ("$limit", _) => Err(refused("Operator '$limit' needs a whole number")),
        ("$and", Json::Array(items)) => items
            .iter()
            .map(Condition::parse)
            .collect::<Result<_, _>>()
            .map(Term::All),
        ("$and", _) => Err(refused("Operator '$and' needs an array")),
        (key, Json::Object(members)) if key.starts_with('&') => {
            let [(operator, Json::Scalar(value))] = members.as_slice() else {
                return Err(refused("A label is compared by one operator with one value"));
            };
            let operator = match operator.as_str() {
                "$eq" => Operator::Equal,
                "$ne" => Operator::NotEqual,
                other => return Err(refused(format!("Operator '{other}' not supported"))),
            };
            Ok(Term::Compare {
                label: key[1..].to_owned(),
                operator,
                value: value.clone(),
            })
        }
        (key, _) if key.starts_with('$') => Err(refused(format!("Operator '{key}' not supported"))),
        (key, _) => Err(refused(format!("Operator '{key}' must start with '$'"))),
    }
}

fn refused(detail: impl Into<String>) -> Failure {
    Failure::unprocessable(detail)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Scalar(Scalar::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Scalar(Scalar::Number(value as f64)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Scalar(Scalar::Number(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Scalar(Scalar::Number(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar(Scalar::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Result<Condition, Failure> {
        Condition::parse(&serde_json::from_str(text).unwrap())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn labels_are_compared_by_type() {
        let number = labels(&[("n", "1"), ("t", "a, b"), ("e", "")]);
        for (text, expected) in [
            (r#"{"&n":{"$eq":1}}"#, true),
            (r#"{"&n":{"$eq":1.0}}"#, true),
            (r#"{"&n":{"$eq":"1"}}"#, false),
            (r#"{"&N":{"$eq":1}}"#, false),
            (r#"{"&t":{"$eq":"a, b"}}"#, true),
            (r#"{"&e":{"$eq":""}}"#, true),
            (r#"{"&t":{"$ne":"x"}}"#, true),
            (r#"{"&none":{"$ne":"x"}}"#, false),
            (r#"{"$and":[{"&n":{"$eq":1}},{"&t":{"$eq":"x"}}]}"#, false),
            ("{}", true),
            ("null", true),
        ] {
            assert_eq!(condition(text).unwrap().holds(&number), expected, "{text}");
        }
    }

    #[test]
    fn the_order_of_members_decides_what_a_limit_counts() {
        let (yes, no) = (labels(&[("n", "x")]), labels(&[]));
        let run = |text: &str| {
            let mut condition = condition(text).unwrap();
            [&no, &yes, &yes].map(|labels| condition.holds(labels))
        };
        assert_eq!(run(r#"{"&n":{"$eq":"x"},"$limit":1}"#), [false, true, false]);
        assert_eq!(run(r#"{"$limit":1,"&n":{"$eq":"x"}}"#), [false, false, false]);
        assert_eq!(run(r#"{"$limit":2}"#), [true, true, false]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            r#"{"&n":"x"}"#,
            r#"{"$foo":1}"#,
            r#"{"&n":{"$in":["x"]}}"#,
            "[]",
            r#"{"$limit":"a"}"#,
            r#"{"x":1}"#,
        ] {
            assert!(condition(text).is_err(), "{text}");
        }
    }
}
