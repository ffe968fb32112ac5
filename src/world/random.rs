//! Generates random bytes, and random text that distinguishes processes.

/// Returns random bytes.
///
/// # Errors
/// When the machine has no random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Returns 16 random hex digits. Two processes that each draw one share no term.
///
/// # Errors
/// When the machine has no random bytes.
pub fn nonce() -> Result<String, getrandom::Error> {
    Ok(bytes::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
