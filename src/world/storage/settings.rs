//! Settings of Flink's file systems that the gateway does not follow, although Flink does: it tells of them, so that a
//! storage which Flink reaches and the gateway does not is no riddle. `docs/ha-data.md` has the table.

use crate::flink::config::Configuration;

/// Prefixes by which Flink's S3 file systems take settings (`S3FileSystemFactory` of flink-s3-fs-hadoop and -presto).
pub const S3_PREFIXES: [&str; 4] = ["s3.", "s3a.", "fs.s3a.", "presto.s3."];

/// A setting that is not followed: where it begins, and what the gateway does in its place.
struct Unfollowed {
    scheme: &'static [&'static str],
    /// Beginning of the key; of S3's without a prefix and with dots for dashes.
    key: &'static str,
    instead: &'static str,
}

const IDENTITY: &str = "the gateway uses access keys of Flink's configuration, else the identity of the pod";
const S3: &[&str] = &["s3", "s3a", "s3p"];
const GOOGLE: &[&str] = &["gs"];
const AZURE: &[&str] = &["abfs", "abfss"];

const UNFOLLOWED: &[Unfollowed] = &[
    Unfollowed { scheme: S3, key: "assumed.role.", instead: IDENTITY },
    Unfollowed { scheme: S3, key: "aws.credentials.provider", instead: IDENTITY },
    Unfollowed { scheme: S3, key: "iam.role", instead: IDENTITY },
    Unfollowed {
        scheme: S3,
        key: "bucket.",
        instead: "the gateway knows no settings of single buckets: set them for all",
    },
    Unfollowed { scheme: S3, key: "proxy.", instead: "set HTTPS_PROXY in env of Flink's container" },
    Unfollowed { scheme: S3, key: "encryption.key", instead: "the gateway sends no keys: let the bucket encrypt" },
    Unfollowed {
        scheme: S3,
        key: "server.side.encryption.key",
        instead: "the gateway sends no keys: let the bucket encrypt",
    },
    Unfollowed { scheme: GOOGLE, key: "gs.storage.root.url", instead: "the gateway uses Google's own address" },
    Unfollowed { scheme: GOOGLE, key: "fs.gs.storage.root.url", instead: "the gateway uses Google's own address" },
    Unfollowed { scheme: AZURE, key: "fs.azure.account.auth.type", instead: IDENTITY },
    Unfollowed { scheme: AZURE, key: "fs.azure.account.oauth", instead: IDENTITY },
    Unfollowed {
        scheme: AZURE,
        key: "fs.azure.account.keyprovider",
        instead: "set AZURE_STORAGE_ACCOUNT_KEY in env of Flink's container",
    },
    Unfollowed { scheme: AZURE, key: "fs.azure.sas.", instead: IDENTITY },
];

/// One sentence for each setting of this configuration that is not followed for a storage of this scheme.
pub fn unfollowed(scheme: &str, configuration: &Configuration) -> Vec<String> {
    let begins = |key: &str, beginning: &str| {
        let s3 = S3_PREFIXES.iter().filter(|_| S3.contains(&scheme));
        key.starts_with(beginning)
            || s3
                .filter_map(|prefix| key.strip_prefix(prefix))
                .any(|rest| rest.replace('-', ".").starts_with(beginning))
    };
    let of_key = |key: &String| {
        let found = UNFOLLOWED.iter().find(|one| one.scheme.contains(&scheme) && begins(key, one.key))?;
        Some(format!("{key} is a setting of Flink's file system that the gateway does not follow: {}", found.instead))
    };
    configuration.keys().filter_map(of_key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_followed_is_told_by_its_key_and_what_is_followed_is_not() {
        for (scheme, key, is_told) in [
            ("s3", "s3.assumed.role.arn", true),
            ("s3", "fs.s3a.aws.credentials.provider", true),
            ("s3a", "fs.s3a.bucket.b.endpoint", true),
            ("s3", "s3.proxy.host", true),
            ("s3", "presto.s3.iam-role", true),
            ("s3", "fs.s3a.encryption.key", true),
            ("s3", "s3.access-key", false),
            ("s3", "s3.endpoint", false),
            ("s3", "s3.connection.ssl.enabled", false),
            ("s3", "fs.azure.account.auth.type", false),
            ("gs", "gs.storage.root.url", true),
            ("gs", "gs.auth.service.account.json.keyfile", false),
            ("abfss", "fs.azure.account.oauth2.client.id.demo.dfs.core.windows.net", true),
            ("abfss", "fs.azure.account.key.demo.dfs.core.windows.net", false),
            ("file", "s3.assumed.role.arn", false),
        ] {
            let configuration = [(key.to_owned(), "x".to_owned())].into_iter().collect();
            let told = unfollowed(scheme, &configuration);
            assert_eq!(told.len(), usize::from(is_told), "{scheme} {key}: {told:?}");
            assert!(told.iter().all(|sentence| sentence.contains(key)), "{told:?}");
        }
    }
}
