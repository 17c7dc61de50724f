//! Glob patterns as the key commands and pattern subscriptions use them.
//!
//! `?` is any byte, `*` any run of bytes, `[a-c]` and `[^a-c]` a set, `\` takes the next byte as it
//! is. Matching keeps one backtrack point, the last `*` seen, so its time is bounded by pattern
//! length times text length; there is no recursion that a pattern of many `*` could blow up.

/// Whether all of `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut backtrack: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            backtrack = Some((p, t));
            continue;
        }
        if let Some(next) = element(pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        match backtrack {
            Some((after_star, start)) => {
                p = after_star;
                t = start + 1;
                backtrack = Some((after_star, t));
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the element at `p`; on success the position after the element.
fn element(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => set(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Matches one byte against the set whose inside starts at `p`. A set that is never closed reaches
/// to the end of the pattern.
fn set(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let inverted = pattern.get(p) == Some(&b'^');
    if inverted {
        p += 1;
    }
    let mut found = false;
    loop {
        match pattern.get(p..) {
            None | Some([]) => break,
            Some([b'\\', escaped, ..]) => {
                found |= *escaped == byte;
                p += 2;
            }
            Some([b']', ..]) => {
                p += 1;
                break;
            }
            Some([a, b'-', b, ..]) => {
                found |= (*a.min(b)..=*a.max(b)).contains(&byte);
                p += 3;
            }
            Some([literal, ..]) => {
                found |= *literal == byte;
                p += 1;
            }
        }
    }
    (found != inverted).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes())
    }

    #[test]
    fn literals_wildcards_and_sets() {
        assert!(check("", ""));
        assert!(!check("", "a"));
        assert!(check("*", ""));
        assert!(check("h?llo", "hello"));
        assert!(!check("h?llo", "hllo"));
        assert!(check("h*llo", "heeello"));
        assert!(check("h[ae]llo", "hallo"));
        assert!(!check("h[^e]llo", "hello"));
        assert!(check("h[a-c]llo", "hbllo"));
        assert!(check("h[c-a]llo", "hbllo"));
        assert!(check("a\\*b", "a*b"));
        assert!(!check("a\\*b", "axb"));
        assert!(check("[\\]]", "]"));
        assert!(check("a*b*c", "a__b__b__c"));
        assert!(!check("a*b*c", "a__b__b__"));
        assert!(check("\\", "\\"));
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "a*".repeat(500) + "b";
        let text = "a".repeat(20_000);
        assert!(!check(&pattern, &text));
    }

    /// The definition, without cleverness.
    fn plain(p: &[u8], t: &[u8]) -> bool {
        match (p, t) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=t.len()).any(|i| plain(rest, &t[i..])),
            ([b'?', rest @ ..], [_, text @ ..]) => plain(rest, text),
            ([a, rest @ ..], [b, text @ ..]) if a == b => plain(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(p in "[ab*?]{0,8}", t in "[ab]{0,10}") {
            prop_assert_eq!(check(&p, &t), plain(p.as_bytes(), t.as_bytes()));
        }
    }
}
