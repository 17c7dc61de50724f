//! Numbers as they travel in requests: strict decimal integers, float seconds, byte sizes.
//!
//! Strict means that an accepted integer, printed again, gives the same bytes. That is what lets a
//! value be kept as an `i64` and still be answered byte for byte.

/// Reads a decimal `i64` with no sign but `-`, no leading zero, no blank. `None` for anything else.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut magnitude: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Nineteen digits stay below 10^19 < 2^64: neither step can overflow.
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Reads a decimal `u64` with the strictness of [`parse_i64`].
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [] => return None,
        [b'0'] => return Some(0),
        [b'0', ..] => return None,
        _ if !text.iter().all(u8::is_ascii_digit) => return None,
        _ => {}
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a finite or infinite float without blanks around it. `None` for anything else, NaN included.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Reads a byte size: a number with an optional unit. `k`, `m`, `g`, `t` are powers of 1000;
/// `kb`, `mb`, `gb`, `tb` (and `kib` ...) are powers of 1024; `b` is bytes. Case does not matter.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "m" => 1000 * 1000,
        "g" => 1000 * 1000 * 1000,
        "t" => 1000 * 1000 * 1000 * 1000,
        "kb" | "kib" => 1 << 10,
        "mb" | "mib" => 1 << 20,
        "gb" | "gib" => 1 << 30,
        "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Bytes for people: two decimals and a binary unit, as `1.50M`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_integer_survives_the_round_trip(n: i64) {
            prop_assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
        }

        #[test]
        fn what_is_accepted_prints_the_same(text in "[-+ 0-9a]{0,22}") {
            if let Some(n) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(n.to_string(), text);
            }
        }

        #[test]
        fn unsigned_numbers_survive_the_round_trip(n: u64) {
            prop_assert_eq!(parse_u64(n.to_string().as_bytes()), Some(n));
        }
    }

    #[test]
    fn integers_at_and_over_the_edge() {
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_i64(b"18446744073709551616"), None);
        for text in ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "1.0", "0x1"] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_with_units() {
        assert_eq!(parse_bytes("0"), Some(0));
        assert_eq!(parse_bytes("100"), Some(100));
        assert_eq!(parse_bytes("1k"), Some(1000));
        assert_eq!(parse_bytes("512mb"), Some(512 << 20));
        assert_eq!(parse_bytes("512 MiB"), Some(512 << 20));
        assert_eq!(parse_bytes("2GB"), Some(2 << 30));
        for text in ["", "mb", "-1", "1.5gb", "1x", "99999999999tb"] {
            assert_eq!(parse_bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human_bytes(0), "0B");
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(1536), "1.50K");
        assert_eq!(human_bytes(3 << 30), "3.00G");
    }

    #[test]
    fn floats() {
        assert_eq!(parse_f64(b"0.25"), Some(0.25));
        assert_eq!(parse_f64(b"nan"), None);
        assert_eq!(parse_f64(b" 1"), None);
        assert_eq!(parse_f64(b""), None);
    }
}
