//! Formats errors as one line for logs and conditions, without the whole `Status` of the API server.

/// Returns an error with its causes on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(said @ kube::Error::Api(_)) = error.downcast_ref() {
        return brief(said);
    }
    let text = error.to_string();
    match error.source().map(chain) {
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text,
    }
}

/// Returns an error of the API server on one line, without the whole `Status`.
pub fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
