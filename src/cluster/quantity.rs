//! Parses Kubernetes quantities such as `1536Mi` or `2G` (`k8s.io/apimachinery/pkg/api/resource.Quantity`), as far as
//! memory needs them.

use crate::api::v1alpha1::Resources;

/// Kubernetes caps larger quantities.
const LIMIT: f64 = (1_u64 << 63) as f64;

/// Returns the number of bytes of a quantity, rounded down; `None` if the text is not a quantity, is negative, or
/// exceeds what Kubernetes counts. Exact up to 2^53 bytes; no pod has that much memory.
pub fn bytes(quantity: &str) -> Option<u64> {
    let unsigned = quantity.strip_prefix('+').unwrap_or(quantity);
    let is_of_number = |character: char| character.is_ascii_digit() || character == '.';
    let digits = unsigned.find(|character| !is_of_number(character)).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let bytes = number * factor(suffix)?;
    (bytes < LIMIT).then_some(bytes as u64)
}

fn factor(suffix: &str) -> Option<f64> {
    Some(match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent => 10.0_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// Returns the amount of memory from which Flink's memory is derived.
pub fn memory(resources: &Resources) -> Option<String> {
    resources.limits.get("memory").or_else(|| resources.requests.get("memory")).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            ("1E+9", Some(1_000_000_000)),
            ("15e-1", Some(1)),
            ("+64Mi", Some(67_108_864)),
            (".5k", Some(500)),
            ("5.", Some(5)),
            ("0", Some(0)),
            ("2000000u", Some(2)),
            ("3500000000n", Some(3)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("0.5Ei", Some(1 << 59)),
            ("7Ei", Some(7 << 60)),
            ("8Ei", None),
            ("lots", None),
            ("", None),
            ("+", None),
            (".", None),
            ("+-1", None),
            ("++1", None),
            ("-1", None),
            ("1.2.3", None),
            ("1 Gi", None),
            ("1K", None),
            ("1ki", None),
            ("1Zi", None),
            ("1e", None),
            ("1e1.5", None),
            ("1Gii", None),
            ("0x10", None),
            ("inf", None),
            ("NaN", None),
        ] {
            assert_eq!(bytes(quantity), expected, "{quantity}");
        }
    }

    /// The documentation of kubernetes.io says about memory that these "represent roughly the same value".
    #[test]
    fn the_examples_of_the_documentation_are_roughly_the_same_value() {
        for quantity in ["128974848", "129e6", "129M", "128974848000m", "123Mi"] {
            let bytes = bytes(quantity).unwrap_or_default();
            assert!((128_974_848..=129_000_000).contains(&bytes), "{quantity}: {bytes}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_exact(number in 0_u64..1 << 53, power in 0_u32..6) {
            let (binary, decimal) = (["", "Ki", "Mi", "Gi", "Ti", "Pi"], ["", "k", "M", "G", "T", "P"]);
            let at = power as usize;
            let small = number >> (10 * power);
            prop_assert_eq!(bytes(&format!("{small}{}", binary[at])), Some(small << (10 * power)));
            let small = number / 1000_u64.pow(power);
            prop_assert_eq!(bytes(&format!("+{small}{}", decimal[at])), Some(small * 1000_u64.pow(power)));
            prop_assert_eq!(bytes(&format!("{small}e{}", 3 * power)), Some(small * 1000_u64.pow(power)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+.0-9eEinumkKMGTP ]{0,12}") {
            let _ = bytes(&text);
        }
    }
}
