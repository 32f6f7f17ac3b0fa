//! A YAML document whose every value knows its line.

use serde_json::{Map, Number, Value};

/// A value and the line on which it begins (from 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line in the file.
    pub line: usize,
    /// What stands there.
    pub data: Data,
}

/// What JSON can say; keys keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// `null`, `~`, nothing.
    Null,
    /// `true`, `yes`, `on`, …
    Bool(bool),
    /// An integer or a float.
    Number(Number),
    /// Text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys (text by now) with their values.
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// The value below `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Mapping(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same without lines.
    pub fn to_value(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(flag) => Value::Bool(*flag),
            Data::Number(number) => Value::Number(number.clone()),
            Data::String(text) => Value::String(text.clone()),
            Data::Sequence(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Data::Mapping(entries) => {
                Value::Object(entries.iter().map(|(key, node)| (key.clone(), node.to_value())).collect::<Map<_, _>>())
            }
        }
    }

    /// How many values it is made of, itself included.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.data {
            Data::Sequence(items) => items.iter().map(Self::size).sum(),
            Data::Mapping(entries) => entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
            _ => 0,
        }
    }
}
