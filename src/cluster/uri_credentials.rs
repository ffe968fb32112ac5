//! Finds credentials in a URI. Everybody would see them who may read the resource, its events, or the arguments of its
//! pods.

/// Schemes whose user is the name of a container: `abfss://container@account.dfs.core.windows.net/…`.
const CONTAINERS: [&str; 4] = ["abfs", "abfss", "wasb", "wasbs"];
/// Names of query parameters that are credentials as a whole.
const NAMES: [&str; 4] = ["sig", "auth", "key", "pwd"];
/// Parts of such names: signed URLs of S3, Google and Azure, tokens, passwords.
const PARTS: [&str; 10] =
    ["signature", "credential", "token", "secret", "password", "passwd", "apikey", "api-key", "api_key", "accesskey"];

/// Returns what in a URI is a credential, as a phrase without its value; `None` if nothing is.
pub fn credential(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && (user.contains(':') || !CONTAINERS.contains(&scheme))
    {
        return Some("a user before the host".to_owned());
    }
    let (_, query) = rest.split('#').next()?.split_once('?')?;
    let names = query.split(['&', ';']).map(|parameter| parameter.split('=').next().unwrap_or_default());
    let secret = names.into_iter().find(|name| is_credential(name))?;
    Some(format!("the query parameter {secret}"))
}

fn is_credential(parameter: &str) -> bool {
    let name = parameter.to_lowercase();
    NAMES.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_and_named_without_their_values() {
        for (uri, found) in [
            ("https://me:hidden@example.org/app.jar", "a user before the host"),
            ("https://hidden@example.org/app.jar", "a user before the host"),
            ("s3://key:hidden@bucket/app.jar", "a user before the host"),
            ("abfss://box:hidden@a.dfs.core.windows.net/app.jar", "a user before the host"),
            (
                "https://b.s3.amazonaws.com/app.jar?X-Amz-Date=1&X-Amz-Signature=hidden",
                "the query parameter X-Amz-Signature",
            ),
            (
                "https://b.s3.amazonaws.com/a?AWSAccessKeyId=hidden&Signature=hidden",
                "the query parameter AWSAccessKeyId",
            ),
            ("https://a.blob.core.windows.net/b/app.jar?sv=2024&sig=hidden", "the query parameter sig"),
            ("https://example.org/app.jar?access_token=hidden#x", "the query parameter access_token"),
        ] {
            assert_eq!(credential(uri).as_deref(), Some(found), "{uri}");
        }
        for uri in [
            "local:///opt/flink/app.jar",
            "https://example.org/app.jar?version=7&keyboard=us",
            "https://example.org/a@b/token/app.jar",
            "s3://bucket/user@example.org/app.jar",
            "abfss://box@a.dfs.core.windows.net/app.jar",
            "file:/volume/app.jar",
            "no uri",
        ] {
            assert_eq!(credential(uri), None, "{uri}");
        }
    }
}
