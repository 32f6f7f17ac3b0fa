//! Decompression of a layer, told by its first bytes: media types lie too often.

use std::io::{self, BufRead, BufReader, Read};

/// Layers that need a larger zstd window than 128 MiB are refused: the window is memory.
const ZSTD_WINDOW_LOG: u32 = 27;

/// `input` decompressed: gzip (any number of members), zstd (any number of frames, skippable ones too), or as it is.
pub(crate) fn reader<'a>(input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    // A first read may be short; what a pipe or socket gives is at least one byte, and chunks are far longer.
    let head = input.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)));
    }
    let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(input))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        reader(bytes).expect("reader").read_to_end(&mut out).expect("decompress");
        out
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compress");
        encoder.finish().expect("compress")
    }

    #[test]
    fn every_kind_and_several_parts_are_read_to_the_end() {
        assert_eq!(plain(b"as it is"), b"as it is");
        assert_eq!(plain(&[gzip(b"one "), gzip(b"two")].concat()), b"one two");
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("compress");
        let skip = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        assert_eq!(plain(&[zstd(b"one "), skip.to_vec(), zstd(b"two")].concat()), b"one two");
        assert_eq!(plain(&[skip.to_vec(), zstd(b"two")].concat()), b"two");
        assert_eq!(plain(b""), b"");
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = gzip(b"some text that is long enough");
        bytes.truncate(bytes.len() - 4);
        assert!(reader(&bytes[..]).expect("reader").read_to_end(&mut Vec::new()).is_err());
    }
}
