//! What a model is: its `config.json`, its tensors, its tokenizer, and the arithmetic of its size.
//!
//! Families are flags that drive one layer loop, not one file each. Nothing here computes a forward pass: this
//! floor describes and reads, `device` and `engine` compute.

pub mod arithmetic;
pub mod config;
pub mod keys;
pub mod presets;
pub mod rope;
pub mod safetensors;
pub mod tensors;
pub mod tokenizer;
