//! The program that the kernel runs when a request of any block device goes to its device, and when it completes. It is written down here instruction by
//! instruction (Documentation/bpf/standardization/instruction-set.rst), so that no compiler is needed for it.
//!
//! ```text
//! request is a read, or empty      -> done
//! bitmap = devices[major << 20 | first_minor], or done
//! first, last = the blocks it touches
//! last is beyond the end           -> set the flag OVERFLOW, and go on with what is inside
//! more than 256 words of bits      -> go on in the coarse bits
//! words of first … last            |= their bits
//! events                           += 1
//! ```

use super::bitmap::{COARSE_SHIFT, EVENTS, FLAGS, HEADER, OVERFLOW, SHAPE, SHIFT_AT};
use super::btf::Layout;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Changes with the program, so that a daemon knows whether the kernel runs its own.
pub(super) const VERSION: u32 = 2;

/// When the program runs. The tracepoints have different arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// `block_rq_issue`: the request.
    Issue,
    /// `block_rq_complete`: the request, its status, and the number of bytes that are complete.
    Complete,
}

/// Requests of more words use the coarse bits: the kernel wants to see the end of every loop. 64 MiB in blocks of 4 KiB.
const MAX_WORDS: i32 = 256;

const MAP_LOOKUP_ELEM: i32 = 1;
/// The result, and what calls give back; calls destroy R0 to R5 and keep the rest.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
const R7: u8 = 7;
const R8: u8 = 8;
const R9: u8 = 9;
/// The end of the stack.
const FP: u8 = 10;

// Places on the stack.
const KEY: i16 = -4;
const LAST_MASK: i16 = -16;
const COUNTER: i16 = -24;

// Operation codes with an immediate; `REG` takes the source register instead.
const REG: u8 = 0x08;
const ADD: u8 = 0x07;
const SUB: u8 = 0x17;
const OR: u8 = 0x47;
const AND: u8 = 0x57;
const LSH: u8 = 0x67;
const RSH: u8 = 0x77;
const MOV: u8 = 0xb7;
const MOV32: u8 = 0xb4;
const JEQ: u8 = 0x15;
const JGT: u8 = 0x25;
const JGE: u8 = 0x35;
const JLT: u8 = 0xa5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD32: u8 = 0x61;
const LOAD64: u8 = 0x79;
const STORE32: u8 = 0x63;
const STORE64: u8 = 0x7b;
const STORE32_IMMEDIATE: u8 = 0x62;
const STORE64_IMMEDIATE: u8 = 0x7a;
const ATOMIC64: u8 = 0xdb;
const ATOMIC_OR: i32 = 0x40;
/// With the old value as the result, the kernel orders it after all that came before.
const ATOMIC_FETCH_ADD: i32 = 0x01;
const LOAD_IMMEDIATE64: u8 = 0x18;
const PSEUDO_MAP_FD: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Inside,
    Fine,
    Next,
    LastWord,
    Count,
    Done,
}

#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    labels: Vec<(Label, usize)>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn raw(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        let [code, registers] = [code, from << 4 | to].map(u64::from);
        #[cfg(target_endian = "big")]
        compile_error!("registers are the other way round there");
        let offset = u64::from(offset as u16);
        self.code.push(code | registers << 8 | offset << 16 | u64::from(immediate as u32) << 32);
    }

    /// `to = to <op> value`
    fn with(&mut self, op: u8, to: u8, value: i32) {
        self.raw(op, to, 0, 0, value);
    }

    /// `to = to <op> from`
    fn with_register(&mut self, op: u8, to: u8, from: u8) {
        self.raw(op | REG, to, from, 0, 0);
    }

    fn jump_if(&mut self, op: u8, register: u8, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.raw(op, register, 0, 0, value);
    }

    fn jump_if_register(&mut self, op: u8, register: u8, other: u8, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.raw(op | REG, register, other, 0, 0);
    }

    fn here(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    /// R0 = the address of the word of the bitmap (R6) whose number is in `KEY`; the program ends where there is none.
    fn find_word(&mut self) {
        self.with_register(MOV, R1, R6);
        self.with_register(MOV, R2, FP);
        self.with(ADD, R2, i32::from(KEY));
        self.raw(CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
        self.jump_if(JEQ, R0, 0, Label::Done);
    }

    fn find_header_word(&mut self, word: usize) {
        self.raw(STORE32_IMMEDIATE, FP, 0, KEY, word as i32);
        self.find_word();
    }

    /// The instructions, with the distances of all jumps. Every label that is jumped to is somewhere.
    fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let to = self.labels.iter().find(|(there, _)| *there == label).map_or(at, |(_, to)| *to);
            let distance = (to as i64 - at as i64 - 1) as i16;
            self.code[at] |= u64::from(distance as u16) << 16;
        }
        self.code
    }
}

/// The instructions for a kernel of this layout; `devices` is the map from device numbers to bitmaps.
pub(super) fn instructions(when: When, layout: &Layout, devices: BorrowedFd<'_>) -> Vec<u64> {
    let mut asm = Assembler::default();
    request(&mut asm, when, layout, devices);
    bounds(&mut asm);
    mark(&mut asm);
    asm.here(Label::Count);
    asm.find_header_word(EVENTS);
    asm.with(MOV, R1, 1);
    asm.raw(ATOMIC64, R0, R1, 0, ATOMIC_FETCH_ADD);
    asm.here(Label::Done);
    asm.with(MOV, R0, 0);
    asm.raw(EXIT, 0, 0, 0, 0);
    asm.finish()
}

/// R6 = the bitmap, R7 = the first sector, R8 = the last.
fn request(asm: &mut Assembler, when: When, layout: &Layout, devices: BorrowedFd<'_>) {
    asm.with_register(MOV, R6, R1);
    asm.raw(LOAD64, R7, R6, 0, 0);
    // The operation is in the low byte of the flags (linux/blk_types.h), and 0 is the only one that reads from a loop device.
    asm.raw(LOAD32, R1, R7, layout.cmd_flags, 0);
    asm.with(AND, R1, 0xff);
    asm.jump_if(JEQ, R1, 0, Label::Done);
    asm.with_register(MOV, R1, R7);
    for pointer in &layout.to_disk {
        asm.raw(LOAD64, R1, R1, *pointer, 0);
    }
    // A queue without a disk: the kernel reads zeros through a null pointer, and no device has the number 0:0.
    asm.raw(LOAD32, R2, R1, layout.major, 0);
    asm.raw(LOAD32, R3, R1, layout.first_minor, 0);
    asm.with(LSH, R2, 20);
    asm.with_register(OR, R2, R3);
    asm.raw(STORE32, FP, R2, KEY, 0);
    match when {
        When::Issue => asm.raw(LOAD32, R8, R7, layout.bytes, 0),
        When::Complete => {
            asm.raw(LOAD64, R8, R6, 16, 0);
            asm.with_register(MOV32, R8, R8);
        }
    }
    asm.raw(LOAD64, R7, R7, layout.sector, 0);

    asm.raw(LOAD_IMMEDIATE64, R1, PSEUDO_MAP_FD, 0, devices.as_raw_fd());
    asm.raw(0, 0, 0, 0, 0);
    asm.with_register(MOV, R2, FP);
    asm.with(ADD, R2, i32::from(KEY));
    asm.raw(CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
    asm.jump_if(JEQ, R0, 0, Label::Done);
    asm.with_register(MOV, R6, R0);

    asm.jump_if(JEQ, R8, 0, Label::Done);
    asm.with(ADD, R8, 511);
    asm.with(RSH, R8, 9);
    asm.with_register(ADD, R8, R7);
    asm.with(ADD, R8, -1);
}

/// R7 = the first block, R8 = the last, both inside the bitmap; R9 = the number of blocks.
fn bounds(asm: &mut Assembler) {
    asm.find_header_word(SHAPE);
    asm.raw(LOAD64, R9, R0, 0, 0);
    asm.with_register(MOV, R1, R9);
    asm.with(RSH, R1, SHIFT_AT as i32);
    asm.with(AND, R1, 63);
    asm.with(LSH, R9, 64 - SHIFT_AT as i32);
    asm.with(RSH, R9, 64 - SHIFT_AT as i32);
    asm.with_register(RSH, R7, R1);
    asm.with_register(RSH, R8, R1);
    asm.jump_if_register(JLT, R8, R9, Label::Inside);
    asm.find_header_word(FLAGS);
    asm.with(MOV, R1, OVERFLOW as i32);
    asm.raw(ATOMIC64, R0, R1, 0, ATOMIC_OR);
    asm.with_register(MOV, R8, R9);
    asm.with(ADD, R8, -1);
    asm.jump_if_register(JGT, R7, R8, Label::Count);
    asm.here(Label::Inside);
}

/// Sets the bits of the blocks R7 to R8.
fn mark(asm: &mut Assembler) {
    asm.with_register(MOV, R1, R8);
    asm.with(RSH, R1, 6);
    asm.with_register(MOV, R2, R7);
    asm.with(RSH, R2, 6);
    asm.with_register(SUB, R1, R2);
    asm.with(MOV, R3, HEADER as i32);
    asm.jump_if(JLT, R1, MAX_WORDS, Label::Fine);
    asm.with(RSH, R7, COARSE_SHIFT as i32);
    asm.with(RSH, R8, COARSE_SHIFT as i32);
    // They begin after the others.
    asm.with_register(MOV, R3, R9);
    asm.with(ADD, R3, 63);
    asm.with(RSH, R3, 6);
    asm.with(ADD, R3, HEADER as i32);

    asm.here(Label::Fine);
    asm.with_register(MOV, R2, R8);
    asm.with(AND, R2, 63);
    asm.with(MOV, R1, 63);
    asm.with_register(SUB, R1, R2);
    asm.with(MOV, R4, -1);
    asm.with_register(RSH, R4, R1);
    asm.raw(STORE64, FP, R4, LAST_MASK, 0);
    asm.with_register(MOV, R1, R7);
    asm.with(AND, R1, 63);
    asm.with(MOV, R5, -1);
    asm.with_register(LSH, R5, R1);
    asm.with_register(MOV, R9, R5);
    // From here on, numbers of words.
    asm.with(RSH, R7, 6);
    asm.with_register(ADD, R7, R3);
    asm.with(RSH, R8, 6);
    asm.with_register(ADD, R8, R3);
    asm.raw(STORE64_IMMEDIATE, FP, 0, COUNTER, 0);

    asm.here(Label::Next);
    asm.jump_if_register(JGE, R7, R8, Label::LastWord);
    asm.raw(STORE32, FP, R7, KEY, 0);
    asm.find_word();
    asm.raw(ATOMIC64, R0, R9, 0, ATOMIC_OR);
    asm.with(MOV, R9, -1);
    asm.with(ADD, R7, 1);
    asm.raw(LOAD64, R1, FP, COUNTER, 0);
    asm.with(ADD, R1, 1);
    asm.raw(STORE64, FP, R1, COUNTER, 0);
    asm.jump_if(JLT, R1, MAX_WORDS, Label::Next);

    asm.here(Label::LastWord);
    asm.raw(LOAD64, R1, FP, LAST_MASK, 0);
    asm.with_register(AND, R9, R1);
    asm.raw(STORE32, FP, R8, KEY, 0);
    asm.find_word();
    asm.raw(ATOMIC64, R0, R9, 0, ATOMIC_OR);
}
