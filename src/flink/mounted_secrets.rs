//! Reads Flink's configuration from Secrets as the kubelet mounts them: one file per key. The shell script that starts
//! Flink (`add-secrets.sh`) does the same.

use std::collections::BTreeMap;

use crate::api::owned;
use crate::flink::config::Configuration;

/// A Secret of `spec.flinkConfigurationFrom`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountedSecret {
    pub name: String,
    /// Contents by key.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Merges the keys of all Secrets; a later Secret has precedence.
///
/// # Errors
/// The first key that Flink must not get, as a sentence with its remedy.
pub fn merged(secrets: &[MountedSecret]) -> Result<Configuration, String> {
    let mut configuration = Configuration::new();
    for MountedSecret { name, files } in secrets {
        for (key, content) in files {
            let value = value(key, content)
                .map_err(|problem| format!("spec.flinkConfigurationFrom: the key {key} of Secret {name} {problem}"))?;
            configuration.insert(key.clone(), value);
        }
    }
    Ok(configuration)
}

/// Returns what can be read of them, for a reader that does not depend on all of it.
pub fn readable(secrets: &[MountedSecret]) -> Configuration {
    let files = secrets.iter().flat_map(|secret| &secret.files);
    files.filter_map(|(key, content)| Some((key.clone(), value(key, content).ok()?))).collect()
}

/// Returns the value of a key, or what is wrong with it and what to do.
fn value(key: &str, content: &[u8]) -> Result<String, String> {
    if let Some(group) = owned::FLINK_CONFIGURATION.iter().find(|group| group.contains(key)) {
        return Err(group.reason.to_owned());
    }
    if !key.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err("is no key of Flink's configuration; remove it from the Secret".to_owned());
    }
    let text = std::str::from_utf8(content).ok().map(|text| text.trim_end_matches('\n'));
    let is_control = |character: char| character.is_control() && !"\n\r\t".contains(character);
    match text {
        Some(text) if !text.contains(is_control) => Ok(text.to_owned()),
        _ => {
            Err("is no text, which values of Flink's configuration are; mount a file of a Secret by the podTemplates \
                  instead, and name its path in spec.flinkConfiguration"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, files: &[(&str, &[u8])]) -> MountedSecret {
        let files = files.iter().map(|(key, content)| ((*key).to_owned(), content.to_vec())).collect();
        MountedSecret { name: name.to_owned(), files }
    }

    #[test]
    fn a_later_secret_has_precedence_and_newlines_at_the_end_do_not_count() {
        let secrets = [secret("a", &[("s3.secret-key", b"one\n\n"), ("x", b"a\nb")]), secret("b", &[("x", b"")])];
        let merged = merged(&secrets).expect("a configuration");
        let values: Vec<(&str, &str)> = merged.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(values, [("s3.secret-key", "one"), ("x", "")]);
        assert_eq!(readable(&secrets), merged);
    }

    #[test]
    fn what_flink_must_not_get_is_told_by_name_and_without_its_value() {
        for (key, content, told) in [
            ("rest.port", &b"hidden"[..], "the key rest.port of Secret s is an address or port"),
            ("high-availability.type", b"hidden", "use spec.highAvailability instead"),
            ("1st", b"hidden", "the key 1st of Secret s is no key of Flink's configuration; remove it"),
            ("store", b"hidden\xff", "the key store of Secret s is no text"),
            ("store", b"hidden\x00", "is no text"),
        ] {
            let secrets = [secret("s", &[(key, content), ("good", b"1")])];
            let error = merged(&secrets).expect_err(key);
            assert!(error.contains(told) && !error.contains("hidden"), "{error}");
            assert_eq!(readable(&secrets).len(), 1, "the others count");
        }
    }
}
