//! Tests of the GGUF reader on hand-made bytes.
