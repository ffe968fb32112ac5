//! Kubernetes quantities such as `1536Mi` or `2G`, as far as memory needs them.

/// The number of bytes of a quantity, rounded down; `None` if it is not one or too large.
pub fn bytes(quantity: &str) -> Option<u64> {
    let digits =
        quantity.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        exponent => 10.0_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let bytes = number * factor;
    // Beyond 2^53 a f64 no longer counts bytes; no pod has that much memory.
    (bytes < 9e15).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (quantity, expected) in [
            ("1536Mi", Some(1_610_612_736)),
            ("2Gi", Some(2_147_483_648)),
            ("1.5Gi", Some(1_610_612_736)),
            ("2G", Some(2_000_000_000)),
            ("1073741824", Some(1_073_741_824)),
            ("1e9", Some(1_000_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("lots", None),
            ("", None),
            ("1Zi", None),
        ] {
            assert_eq!(bytes(quantity), expected, "{quantity}");
        }
    }
}
