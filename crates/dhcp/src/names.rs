//! Names of domains in options, as far as they are fit for resolv.conf: what a neighbour says ends up in a
//! file that others read.

/// More are not taken: libc's resolver long had room for six.
const MOST_NAMES: usize = 16;
/// Longest name in text (RFC 1035, section 2.3.4, without the root's dot).
const MOST_BYTES: usize = 253;
const MOST_LABEL_BYTES: usize = 63;
/// A length with these bits is a pointer to an earlier name's end (RFC 1035, section 4.1.4).
const POINTER: u8 = 0xc0;

/// Those of the search list (option 119), or the domain name (option 15) if there is no such list. Names that are none
/// are left out.
pub(crate) fn listed(search: Option<&[u8]>, domain: Option<&[u8]>) -> Vec<String> {
    let found = search.map(search_list).filter(|names| !names.is_empty());
    let mut names = found.unwrap_or_else(|| domain.map(domain_name).unwrap_or_default());
    names.truncate(MOST_NAMES);
    names
}

/// Some servers put several in, with blanks between, and some end it with a zero.
fn domain_name(value: &[u8]) -> Vec<String> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = text.split(u8::is_ascii_whitespace).filter(|name| !name.is_empty());
    names
        .filter_map(|name| {
            joined(&name.strip_suffix(b".").unwrap_or(name).split(|byte| *byte == b'.').collect::<Vec<_>>())
        })
        .collect()
}

/// RFC 3397: names as DNS has them, compressed within the option. Where one is damaged, the list ends.
fn search_list(value: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < value.len() && names.len() < MOST_NAMES {
        let Some((labels, next)) = labels(value, at) else { break };
        names.extend(joined(&labels));
        at = next;
    }
    names
}

/// The labels of the name at `at`, and where the next name is. Each pointer leads further back than the one
/// before, so that there is an end.
fn labels(value: &[u8], mut at: usize) -> Option<(Vec<&[u8]>, usize)> {
    let (mut labels, mut next, mut earliest) = (Vec::new(), None, at);
    loop {
        let length = *value.get(at)?;
        match length & POINTER {
            0 if length == 0 => return Some((labels, next.unwrap_or(at + 1))),
            0 => {
                labels.push(value.get(at + 1..at + 1 + usize::from(length))?);
                at += 1 + usize::from(length);
            }
            POINTER => {
                let target = usize::from(length & !POINTER) << 8 | usize::from(*value.get(at + 1)?);
                if target >= earliest {
                    return None;
                }
                next.get_or_insert(at + 2);
                (at, earliest) = (target, target);
            }
            _ => return None,
        }
    }
}

/// The name in text, if it is one of letters, digits, hyphens and underscores.
fn joined(labels: &[&[u8]]) -> Option<String> {
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = |label: &&[u8]| (1..=MOST_LABEL_BYTES).contains(&label.len()) && label.iter().all(fit);
    if labels.is_empty() || !labels.iter().all(fits) {
        return None;
    }
    let name = String::from_utf8(labels.join(&b'.')).ok()?;
    (name.len() <= MOST_BYTES).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_uncompressed_and_counts_for_more_than_the_domain() {
        // eng.apple.com and marketing.apple.com: the example of RFC 3397.
        let list = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(listed(Some(list), Some(b"lan")), ["eng.apple.com", "marketing.apple.com"]);
        assert_eq!(listed(None, Some(b"lan")), ["lan"]);
        assert_eq!(listed(Some(b""), Some(b"a.lan. b.lan\0junk")), ["a.lan", "b.lan"]);
        assert!(listed(None, None).is_empty());
    }

    #[test]
    fn what_is_no_name_gets_into_no_file() {
        for bad in [&b"lan\nnameserver 6.6.6.6"[..], b"a..b", b".", b"caf\xc3\xa9", &[b'a'; 64], &[b'.'; 9]] {
            let names = listed(None, Some(bad));
            assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_graphic())), "{names:?}");
            assert!(!names.iter().any(|name| name.is_empty() || name.len() > 63), "{names:?}");
        }
        let newline = b"\x05la\nns\x00\x03lan\x00";
        assert_eq!(listed(Some(newline), None), ["lan"]);
        // Round in circles, forwards, beyond the end, of an unknown kind.
        for bad in [&b"\xc0\x00"[..], b"\x01a\xc0\x00", b"\xc0\x02\x01a\x00", b"\x09abc", b"\x40a\x00"] {
            assert!(listed(Some(bad), None).is_empty(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            for name in listed(Some(&junk), Some(&junk)) {
                prop_assert!(name.len() <= MOST_BYTES && !name.contains(char::is_whitespace));
            }
        }
    }
}
