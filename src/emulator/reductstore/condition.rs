//! The `when` clause of queries.
//!
//! Responsible for the operators that a file client needs: `$eq`, `$ne`, `$and`, `$or`, their other names, and `$limit`,
//! in every notation, and for the directives that bound a batch. The real server has many more operators; here they are
//! refused like unknown ones. Several members of one object are a conjunction, evaluated in order and only as far as
//! needed (measured: `$limit` after a comparison counts matches only). A record that lacks a label which is looked at
//! isn't wanted, also where another alternative of `$or` would hold (measured).

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
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Condition {
    /// All must hold; none holds for every record.
    terms: Vec<Node>,
    pub(super) batch: BatchBounds,
}

/// What `#batch_records` and `#batch_metadata_size` say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BatchBounds {
    pub(super) records: Option<usize>,
    /// Of all headers that describe records, in bytes.
    pub(super) headers: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Constant(Scalar),
    Label(String),
    Equal(Box<[Node; 2]>),
    NotEqual(Box<[Node; 2]>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Limit { left: u64 },
}

/// A label that is looked at and isn't there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing(pub(super) String);

impl Condition {
    pub(super) fn parse(json: &Json) -> Result<Self, Failure> {
        let Json::Object(members) = json else {
            return match json {
                Json::Null => Ok(Self::default()),
                other => parse(other).map(|terms| Self {
                    terms,
                    ..Self::default()
                }),
            };
        };
        let mut condition = Self::default();
        for (key, value) in members {
            if key.starts_with('#') {
                condition.batch.set(key, value)?;
            } else {
                condition.terms.push(parse_member(key, value)?);
            }
        }
        Ok(condition)
    }

    /// Whether the next record of a query with these labels is wanted.
    pub(super) fn holds(&mut self, labels: &BTreeMap<String, String>) -> Result<bool, Missing> {
        all(&mut self.terms, labels)
    }
}

impl BatchBounds {
    fn set(&mut self, directive: &str, value: &Json) -> Result<(), Failure> {
        let number = match value {
            Json::Scalar(Scalar::Number(number)) if *number >= 0.0 && number.fract() == 0.0 => Some(*number as usize),
            _ => return Err(refused(format!("{directive} must be a positive integer"))),
        };
        match directive {
            "#batch_records" => self.records = number,
            "#batch_metadata_size" => self.headers = number,
            _ => return Err(refused(format!("Directive '{directive}' is not supported"))),
        }
        Ok(())
    }
}

impl Scalar {
    fn truth(&self) -> bool {
        match self {
            Self::Bool(truth) => *truth,
            Self::Number(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Text(_), _) | (_, Self::Text(_)) => false,
            (left, right) => left.number() == right.number(),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Bool(truth) => f64::from(u8::from(*truth)),
            Self::Number(number) => *number,
            Self::Text(_) => f64::NAN,
        }
    }
}

impl Node {
    fn value(&mut self, labels: &BTreeMap<String, String>) -> Result<Scalar, Missing> {
        let truth = match self {
            Self::Constant(value) => return Ok(value.clone()),
            Self::Label(name) => {
                let value = labels.get(name).ok_or_else(|| Missing(name.clone()))?;
                return Ok(Scalar::of_label(value));
            }
            Self::Equal(pair) => pair[0].value(labels)?.equals(&pair[1].value(labels)?),
            Self::NotEqual(pair) => !pair[0].value(labels)?.equals(&pair[1].value(labels)?),
            Self::All(nodes) => all(nodes, labels)?,
            Self::Any(nodes) => {
                let mut any = false;
                for node in nodes {
                    any = any || node.value(labels)?.truth();
                }
                any
            }
            Self::Limit { left } => match left.checked_sub(1) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            },
        };
        Ok(Scalar::Bool(truth))
    }
}

fn all(nodes: &mut [Node], labels: &BTreeMap<String, String>) -> Result<bool, Missing> {
    for node in nodes {
        if !node.value(labels)?.truth() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parse(json: &Json) -> Result<Vec<Node>, Failure> {
    match json {
        Json::Object(members) => members.iter().map(|(key, value)| parse_member(key, value)).collect(),
        Json::Array(_) => Err(refused("Array type is not supported")),
        Json::Null => Err(refused("Null type is not supported")),
        Json::Scalar(Scalar::Text(text)) => parse_text(text).map(|node| vec![node]),
        Json::Scalar(value) => Ok(vec![Node::Constant(value.clone())]),
    }
}

/// `{"$operator": [operands]}`, `{"left": {"$operator": right}}` or `{"$operator": operand}`.
fn parse_member(key: &str, value: &Json) -> Result<Node, Failure> {
    match value {
        Json::Array(items) => {
            let mut operands = Vec::new();
            for item in items {
                operands.extend(parse(item)?);
            }
            operator(key, operands)
        }
        Json::Object(members) => {
            let [(name, right)] = members.as_slice() else {
                return Err(refused("Object notation must have exactly one operator"));
            };
            let mut operands = vec![parse_text(key)?];
            operands.extend(parse(right)?);
            operator(name, operands)
        }
        operand => operator(key, parse(operand)?),
    }
}

fn parse_text(text: &str) -> Result<Node, Failure> {
    if let Some(label) = text.strip_prefix('&') {
        return Ok(Node::Label(label.to_owned()));
    }
    if let Some(escaped) = text.strip_prefix("$$") {
        return Ok(Node::Constant(Scalar::Text(format!("${escaped}"))));
    }
    if text.starts_with(['$', '@']) {
        return Err(refused(format!(
            "Unknown '$' literal '{text}'; use '$$' to escape a string value"
        )));
    }
    Ok(Node::Constant(Scalar::Text(text.to_owned())))
}

fn operator(name: &str, operands: Vec<Node>) -> Result<Node, Failure> {
    let two = |operands: Vec<Node>| {
        <[Node; 2]>::try_from(operands)
            .map(Box::new)
            .map_err(|_| refused(format!("{name} requires exactly two operands")))
    };
    match name {
        "$eq" => two(operands).map(Node::Equal),
        "$ne" => two(operands).map(Node::NotEqual),
        "$and" | "$all_of" => Ok(Node::All(operands)),
        "$or" | "$any_of" => Ok(Node::Any(operands)),
        "$limit" => match operands.as_slice() {
            [Node::Constant(Scalar::Number(n))] if *n >= 0.0 && n.fract() == 0.0 => Ok(Node::Limit { left: *n as u64 }),
            _ => Err(refused("Operator '$limit' needs a whole number")),
        },
        name if name.starts_with('$') => Err(refused(format!("Operator '{name}' not supported"))),
        name => Err(refused(format!("Operator '{name}' must start with '$'"))),
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
            (r#"{"$any_of":[{"&n":{"$eq":2}},{"&t":{"$eq":"a, b"}}]}"#, true),
            (r#"{"$or":[{"&none":{"$eq":2}},{"&n":{"$eq":1}}]}"#, false),
            (r#"{"$eq":[0,1]}"#, false),
            (r#"{"$eq":["&n",1]}"#, true),
            (r#"{"$and":[{"&n":{"$eq":1}},{"&t":{"$eq":"x"}}]}"#, false),
            ("{}", true),
            ("null", true),
        ] {
            let holds = condition(text).unwrap().holds(&number);
            assert_eq!(holds.unwrap_or(false), expected, "{text}");
        }
    }

    #[test]
    fn the_order_of_members_decides_what_a_limit_counts() {
        let (yes, no) = (labels(&[("n", "x")]), labels(&[]));
        let run = |text: &str| {
            let mut condition = condition(text).unwrap();
            [&no, &yes, &yes].map(|labels| condition.holds(labels).unwrap_or(false))
        };
        assert_eq!(run(r#"{"&n":{"$eq":"x"},"$limit":1}"#), [false, true, false]);
        assert_eq!(run(r#"{"$limit":1,"&n":{"$eq":"x"}}"#), [false, false, false]);
        assert_eq!(run(r#"{"$limit":2}"#), [true, true, false]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            r#"{"&n":"x"}"#,
            r##"{"#foo":1}"##,
            r##"{"#batch_records":"x"}"##,
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
