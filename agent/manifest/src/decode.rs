//! A [`Node`] to a type, with the line and the path of whatever does not fit.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::node::{Data, Node};

/// A value that does not fit its field, or a field that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Line in the file, from 1.
    pub line: usize,
    /// The field, as `spec.containers[0].image`; empty for the document itself.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return write!(out, "line {}: {}", self.line, self.reason);
        }
        write!(out, "line {}: field {}: {}", self.line, self.field, self.reason)
    }
}

impl std::error::Error for FieldError {}

/// Decodes `node`. Fields that the type does not know come back beside the value; it is the caller's to refuse them.
///
/// As in Go's JSON decoding, `null` means that the field is absent.
///
/// # Errors
/// The first value that does not fit.
pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<(T, Vec<FieldError>), FieldError> {
    let context = Context::default();
    match T::deserialize(At { node, context: &context }) {
        Ok(value) => Ok((value, context.unknown.into_inner())),
        Err(Mismatch(reason)) => {
            let path = context.path.into_inner();
            let line = path.last().map_or(node.line, |(_, line)| *line);
            Err(FieldError { line, field: join(&path), reason })
        }
    }
}

/// Where the decoder stands. A failure leaves the path as it is, so that it tells where it happened.
#[derive(Debug, Default)]
struct Context {
    path: RefCell<Vec<(Segment, usize)>>,
    unknown: RefCell<Vec<FieldError>>,
}

#[derive(Debug, Clone)]
enum Segment {
    Key(String),
    Index(usize),
}

impl Context {
    fn enter(&self, segment: Segment, line: usize) {
        self.path.borrow_mut().push((segment, line));
    }

    fn leave(&self) {
        self.path.borrow_mut().pop();
    }

    fn note_unknown(&self, key: &str, line: usize) {
        let mut path = self.path.borrow().clone();
        path.push((Segment::Key(key.to_owned()), line));
        self.unknown.borrow_mut().push(FieldError { line, field: join(&path), reason: "unknown field".to_owned() });
    }
}

fn join(path: &[(Segment, usize)]) -> String {
    let mut text = String::new();
    for (segment, _) in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            // Keys with dots are map entries (labels, annotations), which the API writes in brackets.
            Segment::Key(key) if key.contains(['.', '/']) => text.push_str(&format!("[{key}]")),
            Segment::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Why a value does not fit, in serde's words.
#[derive(Debug)]
struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    context: &'a Context,
}

impl<'a> At<'a> {
    fn mapping<'de, V: Visitor<'de>>(
        self,
        entries: &'a [(String, Node)],
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_map(Entries { rest: entries.iter(), value: None, fields, context: self.context })
    }

    fn unexpected(self) -> de::Unexpected<'a> {
        match &self.node.data {
            Data::Null => de::Unexpected::Unit,
            Data::Bool(flag) => de::Unexpected::Bool(*flag),
            Data::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), _, _) => de::Unexpected::Signed(number),
                (_, Some(number), _) => de::Unexpected::Unsigned(number),
                (_, _, number) => de::Unexpected::Float(number.unwrap_or(f64::NAN)),
            },
            Data::String(text) => de::Unexpected::Str(text),
            Data::Sequence(_) => de::Unexpected::Seq,
            Data::Mapping(_) => de::Unexpected::Map,
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.data {
            Data::String(text) => visitor.visit_str(text),
            Data::Null => visitor.visit_str(""),
            // Others would let the visitor say "invalid type: integer `1`, expected a string" too, but some accept numbers.
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a string (quote it)")),
        }
    }
}

impl<'de> de::Deserializer<'de> for At<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(flag) => visitor.visit_bool(*flag),
            Data::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_i64(number),
                (_, Some(number), _) => visitor.visit_u64(number),
                (_, _, Some(number)) => visitor.visit_f64(number),
                _ => Err(de::Error::custom("a number that is none")),
            },
            Data::String(text) => visitor.visit_str(text),
            Data::Sequence(items) => visitor.visit_seq(Items { rest: items.iter().enumerate(), context: self.context }),
            Data::Mapping(entries) => self.mapping(entries, None, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.node.data {
            Data::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.text(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.node.data {
            Data::Mapping(entries) => self.mapping(entries, Some(fields), visitor),
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a mapping")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.node.data {
            Data::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a string")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map identifier ignored_any
    }
}

struct Items<'a> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    context: &'a Context,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        self.context.enter(Segment::Index(index), node.line);
        let value = seed.deserialize(At { node, context: self.context })?;
        self.context.leave();
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (String, Node)>,
    value: Option<&'a (String, Node)>,
    /// The fields that the type has; `None` for free maps.
    fields: Option<&'static [&'static str]>,
    context: &'a Context,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        for entry in self.rest.by_ref() {
            let (key, node) = entry;
            if let Some(fields) = self.fields {
                if !fields.contains(&key.as_str()) {
                    self.context.note_unknown(key, node.line);
                    continue;
                }
                if node.data == Data::Null {
                    continue;
                }
            }
            self.value = Some(entry);
            return seed.deserialize(key.as_str().into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let Some((key, node)) = self.value.take() else { return Err(de::Error::custom("a value without its key")) };
        self.context.enter(Segment::Key(key.clone()), node.line);
        let value = seed.deserialize(At { node, context: self.context })?;
        self.context.leave();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(text: &str) -> Result<(Pod, Vec<FieldError>), FieldError> {
        decode(&crate::documents(text).expect("yaml")[0])
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_path() {
        let text =
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    ports:\n    - containerPort: http\n";
        let error = pod(text).expect_err("a port is a number");
        assert_eq!(
            error.to_string(),
            "line 7: field spec.containers[0].ports[0].containerPort: invalid type: string \"http\", expected i32"
        );
        let error = pod("spec:\n  containers: {}\n").expect_err("a list");
        assert!(error.to_string().starts_with("line 2: field spec.containers: invalid type: map"), "{error}");
        let error = pod("metadata:\n  labels:\n    a.b/c: 1\n").expect_err("a string");
        assert!(
            error.to_string().starts_with("line 3: field metadata.labels[a.b/c]: invalid type: integer `1`"),
            "{error}"
        );
        let error = pod("metadata:\n  labels: {v: yes}\n").expect_err("a string");
        assert!(error.to_string().contains("boolean `true`, expected a string (quote it)"), "{error}");
        let error = pod("spec: 3\n").expect_err("a mapping");
        assert_eq!(error.to_string(), "line 1: field spec: invalid type: integer `3`, expected a mapping");
    }

    #[test]
    fn unknown_fields_are_named() {
        let text = "spec:\n  containers:\n  - name: a\n    imagee: b\n    livenessprobe: {}\n  restartpolicy: Never\n";
        let (_, unknown) = pod(text).expect("decodes");
        let unknown: Vec<_> = unknown.iter().map(ToString::to_string).collect();
        assert_eq!(
            unknown,
            [
                "line 4: field spec.containers[0].imagee: unknown field",
                "line 5: field spec.containers[0].livenessprobe: unknown field",
                "line 6: field spec.restartpolicy: unknown field",
            ]
        );
    }

    #[test]
    fn quantities_ports_by_name_and_null_decode() {
        let text = "spec:\n  nodeSelector: null\n  containers:\n  - name: a\n    resources: {limits: {cpu: 2, memory: 64Mi}}\n    \
                    livenessProbe: {httpGet: {port: http}}\n    readinessProbe: {httpGet: {port: 80}}\n";
        let (pod, unknown) = pod(text).expect("decodes");
        assert!(unknown.is_empty());
        let container = &pod.spec.expect("spec").containers[0];
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref()).expect("limits");
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("2", "64Mi"));
    }
}
