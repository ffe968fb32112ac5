//! Generates random text that distinguishes processes.

/// Returns 16 random hex digits. Two processes that each draw one share no term.
///
/// # Errors
/// When the machine has no random bytes.
pub fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
