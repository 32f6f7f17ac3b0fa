//! Text to [`Node`]s, with everything bounded that a hostile file could grow.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag as EventTag};

use crate::node::{Data, Node};
use crate::scalar::{self, Scalar, Tag};

/// The largest file (`kubernetes@v1.37.2:pkg/kubelet/config#maxConfigLength`).
pub const LONGEST: usize = 10 << 20;
/// How deep values may nest.
const DEEPEST: usize = 100;
/// How many values one file may have once its aliases are expanded.
const MOST_VALUES: usize = 400_000;

/// How many tabs between a key and its value are forgiven; each costs another reading.
const MOST_TABS: usize = 64;

/// A file that can't be read as YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct YamlError {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Reads every document of `text`; empty ones are left out.
///
/// # Errors
/// The first thing that can't be read. A duplicate key is an error, though sigs.k8s.io/yaml's lenient mode takes the last:
/// a manifest with two answers has none.
pub fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LONGEST {
        return Err(YamlError { line: 1, reason: format!("longer than {LONGEST} bytes") });
    }
    if let Some(at) = text.find(|c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f')) {
        let line = text[..at].matches('\n').count() + 1;
        return Err(YamlError { line, reason: "control characters are not allowed".to_owned() });
    }
    let mut text = Cow::Borrowed(text);
    for _ in 0..MOST_TABS {
        match read(&text) {
            Ok(documents) => return Ok(documents),
            Err(Failure::Yaml(error)) => return Err(error),
            Err(Failure::Scan(error)) => match without_tab(&text, &error) {
                Some(repaired) => text = Cow::Owned(repaired),
                None => return Err(scan_error(&error)),
            },
        }
    }
    read(&text).map_err(|failure| match failure {
        Failure::Yaml(error) => error,
        Failure::Scan(error) => scan_error(&error),
    })
}

enum Failure {
    Scan(ScanError),
    Yaml(YamlError),
}

fn read(text: &str) -> Result<Vec<Node>, Failure> {
    let lines = if text.contains('\t') { text.lines().collect() } else { Vec::new() };
    let mut reader = Reader { lines, ..Reader::default() };
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => return Ok(reader.documents),
            Some(Ok((event, span))) => reader.take(event, &span).map_err(Failure::Yaml)?,
            Some(Err(error)) => return Err(Failure::Scan(error)),
        }
    }
}

/// `key:<TAB>value` is fine with libyaml and refused by our parser, which stops right behind the tab. The text with a
/// space there instead; `None` when that was not what stopped it.
fn without_tab(text: &str, error: &ScanError) -> Option<String> {
    if !error.info().contains("':' must be followed by a valid YAML whitespace") {
        return None;
    }
    let line_start: usize = text.split_inclusive('\n').take(error.marker().line().checked_sub(1)?).map(str::len).sum();
    let line = text[line_start..].lines().next()?;
    let column = line.char_indices().nth(error.marker().col()).map_or(line.len(), |(at, _)| at);
    let kept = line[..column].trim_end_matches('\t');
    let blanks = " ".repeat(column - kept.len());
    (!blanks.is_empty()).then(|| format!("{}{kept}{blanks}{}", &text[..line_start], &text[line_start + column..]))
}

fn scan_error(error: &ScanError) -> YamlError {
    YamlError { line: error.marker().line(), reason: error.info().to_owned() }
}

/// A collection that is being read.
#[derive(Debug)]
struct Open {
    line: usize,
    anchor: usize,
    /// Written with brackets.
    flow: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sequence(Vec<Value>),
    Mapping(MappingBuilder),
}

/// A finished value, with what a merge needs to know of it.
#[derive(Debug)]
struct Value {
    node: Node,
    alias: bool,
}

#[derive(Debug, Default)]
struct MappingBuilder {
    entries: Vec<(String, Node)>,
    /// Where each key stands, and whether a merge put it there.
    index: HashMap<String, (usize, bool)>,
    pending: Option<Key>,
}

#[derive(Debug)]
enum Key {
    Name(String),
    Merge,
}

#[derive(Debug, Default)]
struct Reader<'a> {
    /// The source, when it holds tabs at all.
    lines: Vec<&'a str>,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    values: usize,
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let line = span.start.line();
        self.refuse_tab(span)?;
        let flow = !span.is_empty();
        match event {
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), line),
            Event::SequenceStart(anchor, _) => {
                self.begin(Open { line, anchor, flow, kind: Kind::Sequence(Vec::new()) })
            }
            Event::MappingStart(anchor, _) => {
                self.begin(Open { line, anchor, flow, kind: Kind::Mapping(MappingBuilder::default()) })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node =
                    node.ok_or_else(|| error(line, "an alias of something that is not there, or that contains it"))?;
                self.count(node.size(), line)?;
                self.put(Value { node, alias: true })
            }
            Event::DocumentStart(_) => {
                // Anchors do not reach over documents.
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// A tab must not indent a block; the parser lets it pass where libyaml does not.
    fn refuse_tab(&self, span: &Span) -> Result<(), YamlError> {
        if self.open.last().is_some_and(|open| open.flow) {
            return Ok(());
        }
        let line = span.start.line();
        let Some(source) = line.checked_sub(1).and_then(|index| self.lines.get(index)) else { return Ok(()) };
        let before: String = source.chars().take(span.start.col()).collect();
        if before.contains('\t') && before.trim().is_empty() {
            return Err(error(line, "a tab must not be used to indent"));
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&EventTag>,
        line: usize,
    ) -> Result<(), YamlError> {
        let name = tag.map(|tag| format!("{}{}", tag.handle, tag.suffix));
        let plain = style == ScalarStyle::Plain;
        let tag = match name.as_deref() {
            None => Tag::None,
            Some(name) => name.strip_prefix("tag:yaml.org,2002:").map_or(Tag::Foreign, Tag::Core),
        };
        let key_wanted =
            matches!(self.open.last(), Some(Open { kind: Kind::Mapping(MappingBuilder { pending: None, .. }), .. }));
        if key_wanted && text == "<<" && ((plain && tag == Tag::None) || tag == Tag::Core("merge")) {
            self.count(1, line)?;
            if let Some(Open { kind: Kind::Mapping(mapping), .. }) = self.open.last_mut() {
                mapping.pending = Some(Key::Merge);
            }
            return Ok(());
        }
        let scalar = scalar::resolve(text, plain, tag).map_err(|reason| error(line, &reason))?;
        self.count(1, line)?;
        if key_wanted {
            let node = text_node(&scalar, line)?;
            self.remember(anchor, &node);
            let key = scalar.key().map_err(|reason| error(line, reason))?;
            if let Some(Open { kind: Kind::Mapping(mapping), .. }) = self.open.last_mut() {
                mapping.pending = Some(Key::Name(key));
            }
            return Ok(());
        }
        let node = text_node(&scalar, line)?;
        self.remember(anchor, &node);
        self.put(Value { node, alias: false })
    }

    fn begin(&mut self, open: Open) -> Result<(), YamlError> {
        if let Some(Open { kind: Kind::Mapping(MappingBuilder { pending: None, .. }), .. }) = self.open.last() {
            return Err(error(open.line, "a key must not be a list or a mapping"));
        }
        if self.open.len() >= DEEPEST {
            return Err(error(open.line, &format!("values nest deeper than {DEEPEST}")));
        }
        self.count(1, open.line)?;
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(Open { line, anchor, kind, .. }) = self.open.pop() else { return Ok(()) };
        let data = match kind {
            Kind::Sequence(items) => Data::Sequence(items.into_iter().map(|value| value.node).collect()),
            Kind::Mapping(mapping) => Data::Mapping(mapping.entries),
        };
        let node = Node { line, data };
        self.remember(anchor, &node);
        self.put(Value { node, alias: false })
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn put(&mut self, value: Value) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None => {
                if value.node.data != Data::Null {
                    self.documents.push(value.node);
                }
                Ok(())
            }
            Some(Open { kind: Kind::Sequence(items), .. }) => {
                items.push(value);
                Ok(())
            }
            Some(Open { kind: Kind::Mapping(mapping), .. }) => mapping.put(value),
        }
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), YamlError> {
        self.values += more;
        if self.values > MOST_VALUES {
            return Err(error(line, &format!("more than {MOST_VALUES} values once aliases are expanded")));
        }
        Ok(())
    }
}

impl MappingBuilder {
    fn put(&mut self, value: Value) -> Result<(), YamlError> {
        let line = value.node.line;
        match self.pending.take() {
            // An alias as a key.
            None => {
                let key = match value.node.data {
                    Data::String(text) => Ok(text),
                    Data::Bool(flag) => Ok(flag.to_string()),
                    Data::Number(number) => Ok(number.to_string()),
                    Data::Null => Err("a key must not be null"),
                    Data::Sequence(_) | Data::Mapping(_) => Err("a key must not be a list or a mapping"),
                };
                self.pending = Some(Key::Name(key.map_err(|reason| error(line, reason))?));
                Ok(())
            }
            Some(Key::Name(key)) => self.set(key, value.node, false),
            Some(Key::Merge) => self.merge(value),
        }
    }

    /// In go-yaml v2 a merge is an assignment at the place where it stands: it overrides keys before it and yields to keys
    /// after it. Of several merged mappings the first wins.
    fn merge(&mut self, value: Value) -> Result<(), YamlError> {
        let line = value.node.line;
        let refuse = || error(line, "map merge requires map or sequence of maps as the value");
        match value.node.data {
            Data::Mapping(entries) => entries.into_iter().try_for_each(|(key, node)| self.set(key, node, true)),
            Data::Sequence(items) if !value.alias => items.into_iter().rev().try_for_each(|item| match item.data {
                Data::Mapping(entries) => entries.into_iter().try_for_each(|(key, node)| self.set(key, node, true)),
                _ => Err(refuse()),
            }),
            _ => Err(refuse()),
        }
    }

    fn set(&mut self, key: String, node: Node, merged: bool) -> Result<(), YamlError> {
        match self.index.get_mut(&key) {
            Some((_, false)) if !merged => {
                let first = self.entries.iter().find(|(name, _)| *name == key).map_or(0, |(_, node)| node.line);
                Err(error(node.line, &format!("key {key:?} is already set on line {first}")))
            }
            Some((at, by_merge)) => {
                *by_merge = *by_merge && merged;
                self.entries[*at].1 = node;
                Ok(())
            }
            None => {
                self.index.insert(key.clone(), (self.entries.len(), merged));
                self.entries.push((key, node));
                Ok(())
            }
        }
    }
}

fn text_node(scalar: &Scalar, line: usize) -> Result<Node, YamlError> {
    let data = match scalar {
        Scalar::Null => Data::Null,
        Scalar::Bool(flag) => Data::Bool(*flag),
        Scalar::Text(text) => Data::String(text.clone()),
        number => match number.number() {
            Some(Ok(number)) => Data::Number(number),
            Some(Err(reason)) => return Err(error(line, &reason)),
            None => Data::Null,
        },
    };
    Ok(Node { line, data })
}

fn error(line: usize, reason: &str) -> YamlError {
    YamlError { line, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
