//! The embedded heap over buffers of many sizes and starts: full, emptied and filled again, against a
//! model of live blocks, from several threads, through collections.
// requirement: W1

mod buffer;
mod full;
mod misuse;
mod model;
mod no_std;
mod shared;
