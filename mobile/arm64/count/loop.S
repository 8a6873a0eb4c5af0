// A known number of instructions, for the test of the plugin: argc - 1 marks apart. Between two marks: N*4 of the loop and
// the few around it, the same each time but for the loop count.
