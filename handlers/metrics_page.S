/* The page as it stands in its file, where it can be read. */
#ifdef __ELF__
	.section .rodata
	.globl status_page
	.hidden status_page
	.type status_page, %object
status_page:
	.incbin "handlers/metrics_page.html"
	.globl status_page_end
	.hidden status_page_end
	.type status_page_end, %object
status_page_end:
	.byte 0
	.size status_page, status_page_end - status_page

	.section .note.GNU-stack, "", %progbits
#endif
