//! Reads a table key by key and then says which keys nobody asked for, with the nearest that was.

use toml::{Table, Value};

use super::{ConfigError, nearest, suggestion};

/// A table of the file and its place, so that every complaint names the key in full.
///
/// No complaint shows a text value: a secret may have been put where it doesn't belong.
pub struct Keys {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
}

impl Keys {
    pub fn new(path: impl Into<String>, table: Table) -> Self {
        Self {
            path: path.into(),
            table,
            asked: Vec::new(),
        }
    }

    /// The full name of a key of this table.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(key, "a text in quotes", &other)),
        }
    }

    /// Whether the key is there with a text.
    pub fn has_text(&self, key: &str) -> bool {
        matches!(self.table.get(key), Some(Value::String(_)))
    }

    pub fn required_text(&mut self, key: &'static str) -> Result<String, ConfigError> {
        match self.text(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(ConfigError::new(format!("{} is empty", self.name(key)))),
            None => Err(self.missing(key)),
        }
    }

    pub fn truth(&mut self, key: &'static str) -> Result<bool, ConfigError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Boolean(value)) => Ok(value),
            Some(other) => Err(self.wrong_type(key, "true or false", &other)),
        }
    }

    /// A table below this one; an absent one is empty.
    pub fn section(&mut self, key: &'static str) -> Result<Option<Keys>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Keys::new(self.name(key), table))),
            Some(other) => Err(self.wrong_type(key, "a table", &other)),
        }
    }

    /// A required key isn't there, unless a misspelt one is.
    pub fn missing(&self, key: &'static str) -> ConfigError {
        match nearest(key, self.table.keys().map(String::as_str)) {
            Some(misspelt) if !self.asked.contains(&misspelt) => {
                ConfigError::new(format!("unknown key {}; did you mean {key:?}?", self.name(misspelt)))
            }
            _ => ConfigError::new(format!("{} is missing", self.name(key))),
        }
    }

    /// Refuses what nobody asked for.
    pub fn finish(self) -> Result<(), ConfigError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(ConfigError::new(format!(
                "unknown key {}{}",
                self.name(unknown),
                suggestion(unknown, self.asked.iter().copied())
            ))),
        }
    }

    /// The keys that are left, whatever they are called.
    pub fn into_rest(self) -> (String, Table) {
        (self.path, self.table)
    }

    fn wrong_type(&self, key: &str, wanted: &str, found: &Value) -> ConfigError {
        let article = match found {
            Value::Integer(_) => "an integer",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::String(_) => "a text",
            Value::Boolean(_) => "a boolean",
            Value::Float(_) => "a float",
            Value::Datetime(_) => "a date",
        };
        ConfigError::new(format!("{} must be {wanted}, not {article}", self.name(key)))
    }
}
