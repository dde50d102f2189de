//! Where bytes are cut: recorded answers serve as inputs as they are, so the cuts are made from the bytes themselves.

/// Longest input that is also fed byte by byte: a head is looked at anew with each piece, which takes time with the square of it.
const BY_THE_BYTE_AT_MOST: usize = 256;

/// Ways to cut `bytes`, as sizes of pieces that are taken in turns.
pub(crate) fn ways(bytes: &[u8]) -> Vec<Vec<usize>> {
    // FNV-1a: another input is cut elsewhere, and the same one always in the same places.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let mut sizes = |at_most: u64| {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((state >> 33) % at_most + 1).unwrap_or(1)
        };
        (0..5).map(|_| next()).collect::<Vec<_>>()
    };
    let mut ways = vec![sizes(1 + bytes.len() as u64 / 2), sizes(40.max(bytes.len() as u64 / 50))];
    if bytes.len() <= BY_THE_BYTE_AT_MOST {
        ways.push(vec![1]);
    }
    ways
}

/// `bytes` in pieces of these sizes, in turns.
pub(crate) fn pieces<'a>(bytes: &'a [u8], sizes: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at((*sizes.next()?).clamp(1, rest.len()));
        rest = after;
        Some(piece)
    })
}

/// The answer in a recording, which has the request before it.
pub(crate) fn answer_of(recorded: &[u8]) -> &[u8] {
    let begin = recorded.windows(7).position(|bytes| bytes == b"HTTP/1.");
    &recorded[begin.unwrap_or(0)..]
}
