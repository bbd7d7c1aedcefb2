#include "textflag.h"

// func sumAVX2(p *byte, n int) int32
//
// Each word w is taken as the signed w-32768 (VPXOR turns its top bit over),
// because VPMADDWD adds signed neighbours into 32 bits; the caller adds the
// 32768s again. n is a multiple of 32 from 32 to 65536: with that many words
// of -32768 the sum of all lanes is -1<<30.
TEXT ·sumAVX2(SB), NOSPLIT, $0-20
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX

	VPCMPEQW Y0, Y0, Y0
	VPSLLW   $15, Y0, Y15 // 16 x 0x8000
	VPSRLW   $15, Y0, Y14 // 16 x 1
	VPXOR    Y0, Y0, Y0
	VPXOR    Y1, Y1, Y1
	VPXOR    Y2, Y2, Y2
	VPXOR    Y3, Y3, Y3

	SUBQ $128, CX
	JLT  rest

block:
	VPXOR    0(SI), Y15, Y4
	VPXOR    32(SI), Y15, Y5
	VPXOR    64(SI), Y15, Y6
	VPXOR    96(SI), Y15, Y7
	VPMADDWD Y4, Y14, Y4
	VPMADDWD Y5, Y14, Y5
	VPMADDWD Y6, Y14, Y6
	VPMADDWD Y7, Y14, Y7
	VPADDD   Y4, Y0, Y0
	VPADDD   Y5, Y1, Y1
	VPADDD   Y6, Y2, Y2
	VPADDD   Y7, Y3, Y3
	ADDQ     $128, SI
	SUBQ     $128, CX
	JGE      block

rest:
	ADDQ $128, CX
	JZ   lanes

vector:
	VPXOR    0(SI), Y15, Y4
	VPMADDWD Y4, Y14, Y4
	VPADDD   Y4, Y0, Y0
	ADDQ     $32, SI
	SUBQ     $32, CX
	JNZ      vector

lanes:
	VPADDD       Y1, Y0, Y0
	VPADDD       Y3, Y2, Y2
	VPADDD       Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDD       X1, X0, X0
	VPSHUFD      $0x4e, X0, X1
	VPADDD       X1, X0, X0
	VPSHUFD      $0xb1, X0, X1
	VPADDD       X1, X0, X0
	VMOVD        X0, AX
	VZEROUPPER
	MOVL         AX, ret+16(FP)
	RET
