//! Tests of the GGUF reader on hand-made bytes.

use super::*;

const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A GGUF file in the making.
#[derive(Default)]
struct Builder {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

impl Builder {
    fn key(mut self, key: &str, value_type: u32, value: &[u8]) -> Self {
        self.keys.push([&string(key)[..], &value_type.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Self {
        let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let count = u32::try_from(dims.len()).unwrap();
        self.tensors.push(
            [&string(name)[..], &count.to_le_bytes(), &dims_bytes, &dtype.to_le_bytes(), &offset.to_le_bytes()]
                .concat(),
        );
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn build(self) -> Vec<u8> {
        let mut bytes = start(3, self.tensors.len() as u64, self.keys.len() as u64);
        bytes.extend(self.keys.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }

    fn parse(self) -> Result<Header, GgufError> {
        Header::parse(&self.build())
    }
}

fn start(version: u32, tensors: u64, keys: u64) -> Vec<u8> {
    [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn array(element: u32, n: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &n.to_le_bytes(), elements].concat()
}

#[test]
fn metadata_of_each_kind_reads_back() {
    let bytes = Builder::default()
        .key("n", U32, &7u32.to_le_bytes())
        .key("s", STRING, &string("text"))
        .key("a", ARRAY, &array(STRING, 2, &[string("x"), string("好")].concat()))
        .key("i", ARRAY, &array(5, 2, &[(-1i32).to_le_bytes(), 2i32.to_le_bytes()].concat()))
        .key("f", 12, &0.5f64.to_le_bytes())
        .key("b", 7, &[1])
        .build();
    let header = Header::parse(&bytes).unwrap();
    let metadata = header.metadata(&bytes);
    assert_eq!(metadata.u64("n").unwrap(), Some(7));
    assert_eq!(metadata.string("s").unwrap(), Some("text"));
    assert_eq!(metadata.strings("a").unwrap(), Some(vec!["x", "好"]));
    assert_eq!(metadata.integers("i").unwrap(), Some(vec![-1, 2]));
    assert_eq!(metadata.f32("f").unwrap(), Some(0.5));
    assert_eq!(metadata.bool("b").unwrap(), Some(true));
    assert_eq!(metadata.u64("none").unwrap(), None);
    assert!(matches!(metadata.u64("s"), Err(GgufError::WrongType { .. })));
    assert!(matches!(metadata.strings("i"), Err(GgufError::WrongType { .. })));
}

#[test]
fn shapes_become_row_major_and_ranges_lie_behind_the_header() {
    let bytes = Builder::default().tensor("w", &[64, 3], 3, 0).tensor("v", &[4], 0, 128).data(160).build();
    let header = Header::parse(&bytes).unwrap();
    let w = header.tensors.get("w").unwrap();
    assert_eq!((w.shape.as_slice(), w.range.len(), w.elements()), (&[3, 64][..], 3 * 2 * 20, 192));
    assert_eq!(header.tensors.get("v").unwrap().range, bytes.len() - 32..bytes.len() - 16);
}

#[test]
fn a_wrong_start_is_refused() {
    assert!(matches!(Header::parse(b"PK\x03\x04"), Err(GgufError::Magic { .. })));
    assert!(matches!(Header::parse(&start(1, 0, 0)), Err(GgufError::Version { version: 1 })));
    // Big-endian files have their version the other way around.
    assert!(matches!(Header::parse(&start(3 << 24, 0, 0)), Err(GgufError::Version { .. })));
}

#[test]
fn counts_beyond_the_limits_are_refused_before_anything_is_read() {
    assert!(matches!(Header::parse(&start(3, u64::MAX, 0)), Err(GgufError::TooLarge { .. })));
    assert!(matches!(Header::parse(&start(3, 0, u64::MAX)), Err(GgufError::TooLarge { .. })));
    assert!(matches!(Header::parse(&start(3, 16_384, 0)), Err(GgufError::Truncated { .. })));
}

#[test]
fn lengths_beyond_the_file_are_refused() {
    let long_string = Builder::default().key("s", STRING, &u64::MAX.to_le_bytes());
    assert!(matches!(long_string.parse(), Err(GgufError::TooLarge { .. })));
    let long_array = Builder::default().key("a", ARRAY, &array(U32, 4_000_000, &[]));
    assert!(matches!(long_array.parse(), Err(GgufError::Truncated { .. })));
    let huge_array = Builder::default().key("a", ARRAY, &array(10, u64::MAX, &[]));
    assert!(matches!(huge_array.parse(), Err(GgufError::TooLarge { .. })));
}

#[test]
fn arrays_nest_only_so_deep() {
    let nested = (0..40).fold(array(U32, 0, &[]), |inner, _| array(ARRAY, 1, &inner));
    assert!(matches!(Builder::default().key("a", ARRAY, &nested).parse(), Err(GgufError::Nesting { .. })));
}

#[test]
fn what_appears_twice_is_refused() {
    let twice = Builder::default().key("k", 7, &[0]).key("k", 7, &[0]);
    assert!(matches!(twice.parse(), Err(GgufError::DuplicateKey { .. })));
    let twice = Builder::default().tensor("w", &[4], 0, 0).tensor("w", &[4], 0, 0).data(32);
    assert!(matches!(twice.parse(), Err(GgufError::DuplicateTensor { .. })));
}

#[test]
fn value_types_and_texts_are_checked() {
    assert!(matches!(Builder::default().key("k", 13, &[0; 8]).parse(), Err(GgufError::ValueType { found: 13, .. })));
    let not_text = [&1u64.to_le_bytes()[..], &[0xFF]].concat();
    assert!(matches!(Builder::default().key("k", STRING, &not_text).parse(), Err(GgufError::NotText { .. })));
}

#[test]
fn tensors_that_make_no_sense_are_refused() {
    let parse = |dims: &[u64], dtype, offset| Builder::default().tensor("w", dims, dtype, offset).data(4096).parse();
    assert!(parse(&[32, 2], 3, 0).is_ok());
    assert!(matches!(parse(&[1, 1, 1, 1, 1], 0, 0), Err(GgufError::TooLarge { .. })));
    assert!(matches!(parse(&[], 0, 0), Err(GgufError::TensorShape { .. })));
    assert!(matches!(parse(&[0, 4], 0, 0), Err(GgufError::TensorShape { .. })));
    assert!(matches!(parse(&[1 << 40, 1 << 40], 0, 0), Err(GgufError::TensorShape { .. })));
    assert!(matches!(parse(&[1 << 62], 0, 0), Err(GgufError::TensorShape { .. })));
    assert!(matches!(parse(&[1 << 40], 0, 0), Err(GgufError::TensorRange { .. })));
    assert!(matches!(parse(&[16, 2], 3, 0), Err(GgufError::TensorRow { .. })));
    assert!(matches!(parse(&[4], 16, 0), Err(GgufError::TensorType { found: 16, .. })));
    assert!(matches!(parse(&[4], 0, 7), Err(GgufError::TensorAlignment { .. })));
    assert!(matches!(parse(&[4], 0, 4096), Err(GgufError::TensorRange { .. })));
    assert!(matches!(parse(&[4], 0, u64::MAX - 31), Err(GgufError::TensorRange { .. })));
}

#[test]
fn the_alignment_is_a_power_of_two_within_bounds() {
    for alignment in [0u32, 1, 2, 3, 48, 1 << 20] {
        let parsed = Builder::default().key("general.alignment", U32, &alignment.to_le_bytes()).parse();
        assert!(matches!(parsed, Err(GgufError::Value { .. })), "{alignment}");
    }
    assert!(Builder::default().key("general.alignment", U32, &64u32.to_le_bytes()).parse().is_ok());
}
