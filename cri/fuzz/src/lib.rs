//! Mutants of documents, for fuzz tests.
//!
//! Bytes that a fuzzer makes up are hardly ever JSON, so here they are a script instead: which document to begin with,
//! and what to change in it, where. Random bytes then give mutants that get past the parser, and an engine that is guided
//! by coverage learns scripts. An empty script is the first document as it is; where a script ends, zeros follow.
//!
//! `cargo xtask fuzz` says how long; the documents lie in each crate's `corpus` folder, and scripts that an engine found
//! to reach new code in `__fuzz__` folders beside the tests, which replay them.

use std::fs;
use std::path::Path;

mod json;
mod text;

/// What a fuzzer has decided, read byte by byte.
#[derive(Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        let wide = if limit > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (wide | usize::from(self.byte())) % limit.max(1)
    }

    /// How many changes to make: few, mostly, or nothing is left that a parser takes.
    fn changes(&mut self) -> usize {
        if self.is_over() { 0 } else { [1, 1, 2, 2, 3, 4, 6, 20][self.below(8)] }
    }

    pub fn pick<'b, T>(&mut self, list: &'b [T]) -> &'b T {
        &list[self.below(list.len())]
    }
}

/// The documents of a folder, in the order of their names.
#[derive(Debug)]
pub struct Documents<T>(Vec<T>);

impl Documents<serde_json::Value> {
    /// # Panics
    /// The folder has none, or one that is no JSON.
    pub fn json(folder: &Path) -> Self {
        Self(read(folder).iter().map(|text| serde_json::from_str(text).expect("JSON")).collect())
    }

    pub fn mutant(&self, script: &[u8]) -> serde_json::Value {
        json::mutant(&self.0, &mut Script::new(script))
    }
}

impl Documents<String> {
    /// # Panics
    /// The folder has none.
    pub fn text(folder: &Path) -> Self {
        Self(read(folder))
    }

    pub fn mutant(&self, script: &[u8]) -> String {
        text::mutant(&self.0, &mut Script::new(script))
    }
}

fn read(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|path| fs::read_to_string(path).expect("text")).collect()
}
