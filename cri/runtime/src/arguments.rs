//! Options as runc takes them: `--name value`, `--name=value`, `-n value`; a long name with one dash does, too.

use crate::fault::{Fault, Outcome};

/// An option that a command knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// One letter, or nothing.
    pub(crate) short: &'static str,
    pub(crate) takes_value: bool,
}

/// An option with a value.
pub(crate) const fn value(name: &'static str, short: &'static str) -> Known {
    Known { name, short, takes_value: true }
}

/// An option without.
pub(crate) const fn flag(name: &'static str, short: &'static str) -> Known {
    Known { name, short, takes_value: false }
}

/// What was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Given {
    options: Vec<(&'static str, String)>,
    pub(crate) rest: Vec<String>,
}

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// At the first argument that is none: the rest belongs to another program.
    First,
    /// At the end, or at `--`.
    End,
}

pub(crate) fn parse(arguments: &[String], known: &[Known], until: Until) -> Outcome<Given> {
    let mut given = Given::default();
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        if argument == "--" {
            given.rest.extend(left.by_ref().cloned());
            break;
        }
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            given.rest.push(argument.clone());
            if until == Until::First {
                given.rest.extend(left.by_ref().cloned());
                break;
            }
            continue;
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, attached) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let option = known.iter().find(|option| option.name == name || (option.short == name && !name.is_empty()));
        let option = option.ok_or_else(|| Fault::new(format!("flag provided but not defined: -{name}")))?;
        let value = match (option.takes_value, attached) {
            (_, Some(value)) => value,
            (false, None) => "true".to_owned(),
            (true, None) => {
                let next = left.next().cloned();
                next.ok_or_else(|| Fault::new(format!("flag needs an argument: -{name}")))?
            }
        };
        if !option.takes_value && !matches!(value.as_str(), "true" | "false" | "1" | "0") {
            return Err(Fault::new(format!("invalid boolean value {value:?} for -{name}")));
        }
        given.options.push((option.name, value));
    }
    Ok(given)
}

impl Given {
    /// The last value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| matches!(value, "true" | "1"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Outcome<Option<T>> {
        let parse = |text: &str| text.parse().map_err(|_| Fault::new(format!("--{name}: {text:?} is no number")));
        self.value(name).map(parse).transpose()
    }

    /// The arguments that are no options: the container's id alone.
    pub(crate) fn id(&self, command: &str) -> Outcome<&str> {
        match self.rest.as_slice() {
            [id] => Ok(id),
            _ => Err(Fault::new(format!("{command:?} requires exactly 1 argument, the container's id"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, until: Until) -> Outcome<Given> {
        let known = [value("bundle", "b"), flag("detach", "d"), value("env", "e"), value("memory-swap", "")];
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&arguments, &known, until)
    }

    #[test]
    fn options_come_in_every_usual_form() {
        let given = parsed("--bundle=/a -b /b id -d --memory-swap -1", Until::End).expect("valid");
        assert_eq!((given.value("bundle"), given.flag("detach")), (Some("/b"), true));
        assert_eq!((given.value("memory-swap"), given.id("state")), (Some("-1"), Ok("id")));
        assert!(!parsed("-detach=false id", Until::End).expect("valid").flag("detach"));
    }

    #[test]
    fn what_belongs_to_another_program_is_left_alone() {
        let given = parsed("-e A=1 -e B=2 id ls -d --bundle", Until::First).expect("valid");
        assert_eq!(given.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(given.rest, ["id", "ls", "-d", "--bundle"]);
        assert_eq!(parsed("-- -x", Until::End).expect("valid").rest, ["-x"]);
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in ["--nope", "-b", "--detach=maybe", "-db"] {
            parsed(bad, Until::End).expect_err(bad);
        }
        parsed("a b", Until::End).expect("valid").id("state").expect_err("two ids");
    }
}
