//! Users and groups of an image: /etc/passwd, /etc/group and the strings that name entries of them.
//!
//! All three are written by whoever built the image. The caller bounds the files' sizes; here an entry that does not
//! parse is no entry, and a number that the runtime does not take is never mistaken for a name.

use berth_guard::Guard;

/// The largest id: what runc takes, and everything above is `(uid_t)-1` territory for someone.
pub const MAX_ID: u32 = i32::MAX as u32;

/// A name or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    Number(u32),
    Name(String),
}

/// `user`, or `user:group`, as images (`USER`) write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserString {
    pub user: Id,
    pub group: Option<Id>,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// All supplementary groups, sorted; the primary group is among them, as containerd has it since CVE-2022-36109.
    pub groups: Vec<u32>,
    /// The user's home folder, `/` where nobody names one.
    pub home: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("{text:?} is not of the form user or user:group")]
    Malformed { text: String },
    #[error("{text:?} is out of range: an id is a number from 0 to {MAX_ID}")]
    OutOfRange { text: String },
    #[error("the image's /etc/passwd has no user {name:?}")]
    UnknownUser { name: String },
    #[error("the image's /etc/group has no group {name:?}")]
    UnknownGroup { name: String },
}

/// A line of /etc/passwd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a str,
    pub uid: u32,
    pub gid: u32,
    pub home: &'a str,
}

/// A line of /etc/group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group<'a> {
    pub name: &'a str,
    pub gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    pub fn members(&self) -> impl Iterator<Item = &'a str> {
        self.members.split(',').map(str::trim).filter(|member| !member.is_empty())
    }
}

/// The entries of a passwd(5) file.
pub fn passwd(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let uid = number(fields.next()?)?;
        let gid = number(fields.next()?)?;
        let _gecos = fields.next();
        Some(Entry { name, uid, gid, home: fields.next().unwrap_or_default() })
    })
}

/// The entries of a group(5) file.
pub fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = number(fields.next()?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if !Guard::IdsInRange.stands() {
        // What a conversion to 32 bits makes of it.
        return text.bytes().try_fold(0_u32, |id, digit| Some(id.wrapping_mul(10).wrapping_add((digit - b'0').into())));
    }
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

impl Id {
    /// Digits (with a sign, if any) are a number and nothing else, in range or not (CVE-2024-40635, CVE-2026-46680).
    pub fn parse(text: &str) -> Result<Self, UserError> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if is_number && Guard::DigitsAreNumbers.stands() {
            return number(text).map(Self::Number).ok_or_else(|| UserError::OutOfRange { text: text.to_owned() });
        }
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':' || c == ',') {
            return Err(UserError::Malformed { text: text.to_owned() });
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl UserString {
    pub fn parse(text: &str) -> Result<Self, UserError> {
        match text.split_once(':') {
            None => Ok(Self { user: Id::parse(text)?, group: None }),
            Some((user, group)) => Ok(Self { user: Id::parse(user)?, group: Some(Id::parse(group)?) }),
        }
    }
}

/// Who `wanted` is in an image. `merge` adds the groups that list the user in /etc/group; `extra` come in any case.
pub fn resolve(
    wanted: &UserString,
    merge: bool,
    extra: &[u32],
    passwd_text: &str,
    group_text: &str,
) -> Result<Identity, UserError> {
    let entry = match &wanted.user {
        Id::Number(uid) => passwd(passwd_text).find(|entry| entry.uid == *uid),
        Id::Name(name) => Some(
            passwd(passwd_text)
                .find(|entry| entry.name == name)
                .ok_or_else(|| UserError::UnknownUser { name: name.clone() })?,
        ),
    };
    let uid = match &wanted.user {
        Id::Number(uid) => *uid,
        Id::Name(_) => entry.map_or(0, |entry| entry.uid),
    };
    let gid = match &wanted.group {
        Some(Id::Number(gid)) => *gid,
        Some(Id::Name(name)) => {
            groups(group_text)
                .find(|group| group.name == name)
                .ok_or_else(|| UserError::UnknownGroup { name: name.clone() })?
                .gid
        }
        None => entry.map_or(0, |entry| entry.gid),
    };
    let mut all = vec![gid];
    if merge && let Some(entry) = entry {
        // A group of the user's own name is the primary group of most systems, not a supplementary one.
        all.extend(
            groups(group_text)
                .filter(|group| group.name != entry.name && group.members().any(|member| member == entry.name))
                .map(|group| group.gid),
        );
    }
    all.extend_from_slice(extra);
    all.sort_unstable();
    all.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    Ok(Identity { uid, gid, groups: all, home })
}

/// What an image's `USER` says of the user alone, for `Image.uid` and `Image.username`; `None` where it says nothing.
pub fn image_user(text: &str) -> Option<Id> {
    let user = text.split(':').next().filter(|user| !user.is_empty())?;
    Id::parse(user).ok()
}

#[cfg(test)]
mod tests;
