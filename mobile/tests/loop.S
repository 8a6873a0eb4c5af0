// Pairs of marks around loops of 1000 and 3000 rounds of 4 instructions; between the marks of a pair 2 more execute.
    .global _start
_start:
    mov x19, #1000
    bl  run
    mov x19, #3000
    bl  run
    mov x8, #93 // exit
    mov x0, #0
    svc #0
run:
    mov x8, #5350 // mark
    svc #0
1:  nop
    nop
    subs x19, x19, #1
    b.ne 1b
    mov x8, #5350
    svc #0
    ret
