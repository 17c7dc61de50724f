//! The decoder of requests, fed with any bytes under any limits, cut anywhere.
//!
//! Owns the oracles: how the bytes are cut makes no difference; what was decoded, encoded again, decodes
//! to the same; no request passes a limit; the buffer grows with what has arrived and not with what was
//! announced, and an input at rest holds no more than what is unread.

use arbitrary::{Arbitrary, Unstructured};
use flagstone_server::resp::input::Input;
use flagstone_server::resp::scan::{ProtocolError, WireLimits};

/// Room that an input may offer to one read.
const ROOM: usize = 128 << 10;

type Requests = Vec<Vec<Vec<u8>>>;

#[derive(Arbitrary, Debug)]
struct Case {
    elements: u8,
    bulk: u8,
    inline: u8,
    request: u16,
    narrow: bool,
    cuts: [u8; 4],
}

/// Decodes what some bytes hold.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(case) = Case::arbitrary(&mut input) else { return };
    let bytes = input.take_rest();
    let limits = if case.narrow {
        let bulk = 1 + usize::from(case.bulk);
        WireLimits {
            elements: 1 + usize::from(case.elements % 16),
            bulk,
            inline: usize::from(case.inline),
            request: bulk + usize::from(case.request),
        }
    } else {
        WireLimits::default()
    };
    let whole = decode(bytes, limits, &[usize::MAX]);
    let cuts = case.cuts.map(|cut| 1 + usize::from(cut % 32));
    assert_eq!(decode(bytes, limits, &cuts), whole, "the cuts {cuts:?} made a difference");
    assert_eq!(decode(bytes, limits, &[1]), whole, "single bytes made a difference");
    let (requests, _) = whole;
    for request in &requests {
        assert!(!request.is_empty(), "a request of no words");
        let longest = limits.bulk.max(limits.inline);
        assert!(request.iter().all(|word| word.len() <= longest), "a word passes its limit");
        let words: usize = request.iter().map(Vec::len).sum();
        assert!(words <= limits.request.max(limits.inline), "a request passes its limit");
    }
    let encoded: Vec<u8> = requests.iter().flat_map(|words| encode(words)).collect();
    let again = decode(&encoded, WireLimits::default(), &cuts);
    assert_eq!(again, (requests, None), "what was decoded does not survive");
}

/// The requests up to the first error, and the error.
fn decode(bytes: &[u8], limits: WireLimits, cuts: &[usize]) -> (Requests, Option<ProtocolError>) {
    let mut input = Input::new(limits);
    let mut requests = Vec::new();
    let (mut rest, mut fed) = (bytes, 0);
    for &cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(cut.min(rest.len()));
        rest = later;
        input.room().expect("memory").extend_from_slice(now);
        input.arrived(now.len());
        fed += now.len();
        loop {
            match input.next_request() {
                Ok(Some(args)) => {
                    assert_eq!(args.from(0).len(), args.len());
                    requests.push(args.from(0).map(<[u8]>::to_vec).collect());
                }
                Ok(None) => break,
                Err(error) => {
                    let text = error.to_string();
                    assert!(!text.contains(['\r', '\n']), "{text:?} would be two replies");
                    return (requests, Some(error));
                }
            }
        }
        assert!(input.held() <= 4 * fed + ROOM, "{} bytes held for {fed}", input.held());
        if cut % 3 == 0 {
            input.rest();
            assert!(input.unread() > 0 || input.held() == 0, "an input at rest holds memory");
        }
    }
    (requests, None)
}

/// A request as an array of bulk strings.
pub(crate) fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
