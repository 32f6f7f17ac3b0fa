//! Names of slices and scopes. They come from configurations, so each is checked before systemd, or a path, sees it.

/// systemd's limit for a unit's name (`UNIT_NAME_MAX`), which a folder's name has, too.
const LONGEST: usize = 255;
/// How deep a slice may lie: as deep as systemd expands names, and far above what anybody uses.
const DEEPEST: usize = 32;

const SLICE: &str = ".slice";
const SCOPE: &str = ".scope";

/// Why something is no name of a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} {reason}")]
pub struct NameError {
    pub name: String,
    pub reason: &'static str,
}

fn refused(name: &str, reason: &'static str) -> NameError {
    // A hostile name may be long; who reads the message needs its beginning.
    NameError { name: name.chars().take(LONGEST).collect(), reason }
}

/// A slice's name, `kubepods-besteffort.slice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice(String);

impl Slice {
    /// Checks a name as systemd does; `-` is the root's short name, as with runc (docs/systemd.md).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if matches!(name, "-" | "-.slice") {
            return Ok(Self("-.slice".to_owned()));
        }
        check(name)?;
        let Some(stem) = name.strip_suffix(SLICE) else { return Err(refused(name, "does not end in .slice")) };
        let parts = stem.split('-').count();
        if stem.split('-').any(str::is_empty) {
            return Err(refused(name, "has an empty part between dashes"));
        }
        if parts > DEEPEST {
            return Err(refused(name, "has more than 32 parts between dashes"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The slice that a path like `/a.slice/a-b.slice` leads to, or the name `a-b.slice` says: the kubelet sends the
    /// first, and other clients the second.
    ///
    /// # Errors
    /// As [`Slice::parse`]; and where systemd would not put the slice there.
    pub fn at(path: &str) -> Result<Self, NameError> {
        let slice = Self::parse(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default())?;
        let parts = || path.split('/').filter(|part| !part.is_empty());
        if path.contains('/') && !parts().eq(slice.path().split('/').filter(|part| !part.is_empty())) {
            return Err(refused(path, "is not where systemd has a slice of that name"));
        }
        Ok(slice)
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Its cgroup's path: `a-b.slice` lies at `/a.slice/a-b.slice`. The root's is empty, so that a child's name can follow.
    pub fn path(&self) -> String {
        let Some(stem) = self.0.strip_suffix(SLICE).filter(|stem| *stem != "-") else { return String::new() };
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        ends.map(|end| format!("/{}{SLICE}", &stem[..end])).collect()
    }
}

/// A container's unit and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub slice: Slice,
    /// With its suffix, `cri-berth-ID.scope`.
    pub unit: String,
}

impl Place {
    /// The scope `PREFIX-NAME.scope`.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn scope(slice: Slice, prefix: &str, name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(refused(name, "is no name for a scope"));
        }
        if name.ends_with(SLICE) {
            return Err(refused(name, "names a slice, which can't have a container's processes"));
        }
        let unit = format!("{prefix}-{name}{SCOPE}");
        check(&unit)?;
        Ok(Self { slice, unit })
    }

    /// What `linux.cgroupsPath` says to runc's systemd driver: `SLICE:PREFIX:NAME`, each of the first two possibly empty;
    /// nothing is `:runc:ID`, so that whoever looks for containers in runc's place finds these.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_cgroups_path(path: &str, id: &str, rootless: bool) -> Result<Self, NameError> {
        let default = if rootless { "user.slice" } else { "system.slice" };
        if path.is_empty() {
            return Self::scope(Slice::parse(default)?, "runc", id);
        }
        let mut parts = path.split(':');
        let (Some(slice), Some(prefix), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refused(path, "is not of the form SLICE:PREFIX:NAME, which the systemd cgroup driver takes"));
        };
        Self::scope(Slice::parse(if slice.is_empty() { default } else { slice })?, prefix, name)
    }

    /// Its cgroup's path.
    pub fn path(&self) -> String {
        format!("{}/{}", self.slice.path(), self.unit)
    }

    /// As [`Place::of_cgroups_path`] reads it, for other runtimes.
    pub fn cgroups_path(&self) -> Option<String> {
        let (prefix, name) = self.unit.strip_suffix(SCOPE)?.rsplit_once('-')?;
        Some(format!("{}:{prefix}:{name}", self.slice.name()))
    }
}

/// The letters of unit names (systemd.unit(5)), without `@`, which makes instances of templates, and `\`, which escapes.
fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > LONGEST {
        return Err(refused(name, "has not between 1 and 255 bytes"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.')) {
        return Err(refused(name, "has a letter that a systemd unit's name can't have"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slices_lie_where_their_names_say() {
        for (name, path) in [
            ("system.slice", "/system.slice"),
            (
                "kubepods-burstable-pod1_2.slice",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
            ),
            ("-.slice", ""),
            ("-", ""),
        ] {
            let slice = Slice::parse(name).expect(name);
            assert_eq!(slice.path(), path);
            assert_eq!(
                Slice::at(&format!("{path}/")).ok().filter(|_| !path.is_empty()),
                (!path.is_empty()).then_some(slice)
            );
        }
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        let (long, deep) = (format!("{}.slice", "a".repeat(250)), format!("{}a.slice", "a-".repeat(32)));
        for bad in
            ["", ".slice", "a", "a.scope", "a/b.slice", "-a.slice", "a--b.slice", "a-.slice", "a b.slice", "ä.slice"]
                .into_iter()
                .chain(["a\0.slice", "a@.slice", "../a.slice", "a\n.slice", "a\\x2d.slice", &long, &deep])
        {
            Slice::parse(bad).expect_err(bad);
        }
        for bad in ["/b.slice/a-b.slice", "/x/a.slice", "/a.slice/../a.slice", "/a.slice/a", "/", ""] {
            Slice::at(bad).expect_err(bad);
        }
    }

    #[test]
    fn cgroups_paths_are_read_as_runc_reads_them() {
        let read = |path: &str| Place::of_cgroups_path(path, "c1", false).map(|place| place.path());
        assert_eq!(read("").expect("default"), "/system.slice/runc-c1.scope");
        assert_eq!(read("::x").expect("empty parts"), "/system.slice/-x.scope");
        assert_eq!(read("user-1000.slice:libpod:ab").expect("all"), "/user.slice/user-1000.slice/libpod-ab.scope");
        assert_eq!(read("-:p:n").expect("the root"), "/p-n.scope");
        let rootless = Place::of_cgroups_path("", "c1", true).expect("default");
        assert_eq!(rootless.path(), "/user.slice/runc-c1.scope");
        for bad in ["/kubepods/x", "a.slice:b", "a.slice:b:c:d", "a.slice:b:", "a:b:c", "a.slice:b/c:d", ":x:a.slice"] {
            read(bad).expect_err(bad);
        }
        read(&format!(":p:{}", "n".repeat(250))).expect_err("too long");
        Place::of_cgroups_path("", "a+b", false).expect_err("an id that a unit can't have");
    }

    #[test]
    fn a_scope_is_named_again_for_others() {
        let place = Place::of_cgroups_path("a-b.slice:cri-berth:0f", "c", false).expect("plain");
        assert_eq!(place.cgroups_path().as_deref(), Some("a-b.slice:cri-berth:0f"));
    }

    proptest! {
        #[test]
        fn no_name_leads_elsewhere(path in "[-ab.+/]{0,8}(\\.slice)?:[ab/-]{0,3}:[-ab./ä]{1,4}", at in "[-a-b./]{0,30}") {
            if let Ok(place) = Place::of_cgroups_path(&path, "c", false) {
                let cgroup = place.path();
                prop_assert!(cgroup.ends_with(".scope") && cgroup.starts_with('/') && !cgroup.contains("//"));
                prop_assert!(cgroup.split('/').skip(1).all(|part| part.contains('.') && part.len() <= LONGEST && part != ".."));
                prop_assert_eq!(Slice::parse(place.slice.name()), Ok(place.slice.clone()));
            }
            if let Ok(slice) = Slice::at(&at) {
                prop_assert!(!slice.name().contains('/'));
            }
        }
    }
}
