//! Inline requests: one line of words, as a person types them into a plain TCP connection.
//!
//! Words are separated by blanks. Inside double quotes `\n \r \t \a \b`, `\xHH` and `\` before any
//! byte are escapes; inside single quotes only `\'` is. A closing quote must be followed by a blank
//! or the end.

use std::ops::Range;

use super::scan::ProtocolError;

/// Splits `line` into words. Their bytes, escapes resolved, are appended to `words`, and to `ranges`
/// where each word lies in there.
///
/// # Errors
/// [`ProtocolError::InlineQuotes`] if a quote does not close or text follows a closing quote,
/// [`ProtocolError::OutOfMemory`] if there is no memory for the words.
pub fn split(
    line: &[u8],
    words: &mut Vec<u8>,
    ranges: &mut Vec<Range<usize>>,
) -> Result<(), ProtocolError> {
    // No word is longer than it was spelt.
    words.try_reserve(line.len()).map_err(|_| ProtocolError::OutOfMemory)?;
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(());
        }
        let start = words.len();
        rest = word(rest, words)?;
        ranges.try_reserve(1).map_err(|_| ProtocolError::OutOfMemory)?;
        ranges.push(start..words.len());
    }
}

/// Takes one word off the front of `rest`.
fn word<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Ok(rest),
            [blank, ..] if blank.is_ascii_whitespace() => return Ok(rest),
            [b'"', inside @ ..] => return closed(double_quoted(inside, out)?),
            [b'\'', inside @ ..] => return closed(single_quoted(inside, out)?),
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Err(ProtocolError::InlineQuotes),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 0x07,
                    b'b' => 0x08,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Err(ProtocolError::InlineQuotes),
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                rest = after;
            }
            [b'\'', after @ ..] => return Ok(after),
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}

/// After a closing quote comes a blank or the end.
fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest {
        [next, ..] if !next.is_ascii_whitespace() => Err(ProtocolError::InlineQuotes),
        _ => Ok(rest),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        split(line, &mut bytes, &mut ranges)?;
        Ok(ranges.into_iter().map(|range| bytes[range].to_vec()).collect())
    }

    #[test]
    fn blanks_separate() {
        assert_eq!(words(b"  set  k\tv ").unwrap(), [b"set".to_vec(), b"k".into(), b"v".into()]);
        assert_eq!(words(b"").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(words(br#"set "a b" 'c d'"#).unwrap()[1..], [b"a b".to_vec(), b"c d".into()]);
        assert_eq!(words(br#""\x41\n\"\q""#).unwrap(), [b"A\n\"q".to_vec()]);
        assert_eq!(words(br"'it\'s \n'").unwrap(), [br"it's \n".to_vec()]);
        assert_eq!(words(br#""""#).unwrap(), [b"".to_vec()]);
        assert_eq!(words(br#"ab"c d""#).unwrap(), [b"abc d".to_vec()]);
    }

    #[test]
    fn unbalanced() {
        for line in [r#"set k "v"#, "set k 'v", r#""a"b"#, r"'a'b", "\"\\"] {
            assert_eq!(words(line.as_bytes()), Err(ProtocolError::InlineQuotes), "{line}");
        }
    }
}
