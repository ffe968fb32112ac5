//! Random text that tells processes apart.

/// Random per process, so that no two processes ever share a term.
///
/// # Errors
/// When the machine has no random bytes.
pub fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
