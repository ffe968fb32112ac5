//! Defines versions of Flink: which one a JVM runs, in which form it stores jobs, and which one goes on from the HA
//! data of another.

use std::fmt::{Display, Formatter};

/// Minor versions of which each goes on from the HA data of each other one, by `make test-flink-versions`: upwards,
/// and back, because an upgrade that does not come up is taken back. Flink itself promises this for savepoints only.
/// 1.20 is not among them, although its application of the test goes on in 2.x: what Kryo has serialized there, Flink 2
/// does not read (FLINK-3154).
const PROVEN: [(u32, u32); 4] = [(2, 0), (2, 1), (2, 2), (2, 3)];

/// Prefix and suffix of the jar with Flink's own classes in the directory `lib` of each distribution.
const DISTRIBUTION: (&str, &str) = ("flink-dist-", ".jar");

/// Longer ones are no version of Flink.
const LENGTH: usize = 64;

/// A version of Flink, such as `1.20.5`, `2.3.0` or `2.4-SNAPSHOT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlinkVersion {
    major: u32,
    minor: u32,
    text: String,
}

/// The form in which a JobManager stores jobs. It does not see those that are stored in the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredForm {
    /// Flink 1.x.
    JobGraph,
    /// Flink 2.x.
    ExecutionPlan,
}

impl StoredForm {
    pub fn other(self) -> Self {
        match self {
            Self::JobGraph => Self::ExecutionPlan,
            Self::ExecutionPlan => Self::JobGraph,
        }
    }

    /// The versions that store jobs so, for people.
    pub fn versions(self) -> &'static str {
        match self {
            Self::JobGraph => "1.x",
            Self::ExecutionPlan => "2.x",
        }
    }
}

impl FlinkVersion {
    /// Returns the version that a text is; `None` if it is none.
    pub fn of(text: &str) -> Option<Self> {
        let is_plain = text.chars().all(|one| one.is_ascii_alphanumeric() || ".-_".contains(one));
        let (major, rest) = text.split_once('.').filter(|_| is_plain && text.len() <= LENGTH)?;
        let minor = rest.split(['.', '-']).next()?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()?, text: text.to_owned() })
    }

    /// Returns the version of a JVM that has opened files of these names; `None` if they tell of none, or of several.
    pub fn of_open_files<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let of_jar = |name: &'a str| name.strip_prefix(DISTRIBUTION.0)?.strip_suffix(DISTRIBUTION.1);
        let mut jars: Vec<&str> = names.into_iter().filter_map(of_jar).collect();
        jars.sort_unstable();
        jars.dedup();
        match jars.as_slice() {
            [version] => Self::of(version),
            _ => None,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn stored_form(&self) -> StoredForm {
        if self.major < 2 { StoredForm::JobGraph } else { StoredForm::ExecutionPlan }
    }

    /// Whether somebody who says `declared` means this version: itself, or a line of versions to which it belongs.
    pub fn is_meant_by(&self, declared: &str) -> bool {
        self.text.strip_prefix(declared).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    }

    /// Whether an application is known to go on from HA data of another version.
    pub fn goes_on_from(&self, before: &Self) -> bool {
        let (from, to) = ((before.major, before.minor), (self.major, self.minor));
        from == to || [from, to].iter().all(|one| PROVEN.contains(one))
    }
}

impl Display for FlinkVersion {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> FlinkVersion {
        FlinkVersion::of(text).unwrap_or_else(|| panic!("{text} is no version"))
    }

    #[test]
    fn the_versions_that_flink_and_others_publish_are_read_and_nothing_else() {
        for (text, form) in [
            ("1.20.5", StoredForm::JobGraph),
            ("2.3.0", StoredForm::ExecutionPlan),
            ("2.4-SNAPSHOT", StoredForm::ExecutionPlan),
            ("1.20.1-acme-2", StoredForm::JobGraph),
            ("2.3", StoredForm::ExecutionPlan),
        ] {
            assert_eq!((version(text).stored_form(), version(text).to_string().as_str()), (form, text));
        }
        let long = format!("2.3.{}", "0".repeat(LENGTH));
        for text in ["", "2", "2.x", "v2.3", "2.3.0 ", "2.3.0\n", "latest", "2..3", "2-3", "2.99999999999", &long] {
            assert_eq!(FlinkVersion::of(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_jvm_is_known_by_the_jar_that_it_has_opened() {
        let of = |names: &[&str]| FlinkVersion::of_open_files(names.iter().copied()).map(|version| version.text);
        assert_eq!(
            of(&["socket:[7]", "modules", "flink-cep-1.20.5.jar", "flink-dist-2.3.0.jar"]),
            Some("2.3.0".into())
        );
        assert_eq!(of(&["flink-dist-2.3.0.jar", "flink-dist-2.3.0.jar"]), Some("2.3.0".into()));
        assert_eq!(of(&["flink-dist-2.3.0.jar", "flink-dist-1.20.5.jar"]), None, "one of them is somebody's");
        assert_eq!(of(&["flink-dist.jar", "my-flink-dist-2.3.0.jar", "flink-dist-2.3.0.jar.bak"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_declared_version_means_itself_and_what_belongs_to_it() {
        for declared in ["2.3.0-acme-1", "2.3.0-acme", "2.3.0", "2.3"] {
            assert!(version("2.3.0-acme-1").is_meant_by(declared), "{declared}");
        }
        for declared in ["2.3.0-ac", "2.3.0-acme-10", "2.3.1", "2.30", "2.2", "3.0"] {
            assert!(!version("2.3.0-acme-1").is_meant_by(declared), "{declared}");
        }
        assert!(!version("2.30.0").is_meant_by("2.3"));
    }

    #[test]
    fn ha_data_is_known_to_be_of_use_within_a_minor_version_and_among_those_that_were_tried() {
        let goes_on = |from: &str, to: &str| version(to).goes_on_from(&version(from));
        assert!(goes_on("1.20.1", "1.20.5") && goes_on("1.20.5", "1.20.1") && goes_on("2.3.0", "2.3.0-acme"));
        assert!(goes_on("2.0.2", "2.3.0") && goes_on("2.3.0", "2.0.2"));
        for (from, to) in [("1.20.5", "2.0.2"), ("2.0.2", "1.20.5"), ("2.3.0", "2.4.0"), ("1.19.1", "1.20.5")] {
            assert!(!goes_on(from, to), "{from} to {to}");
        }
    }
}
