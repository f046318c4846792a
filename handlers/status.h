/* What the metrics handler tells of servers, as text. */
#ifndef STATUS_H
#define STATUS_H

#include <stdio.h>

#include "handlers.h"

/* Prometheus' text exposition format, 0.0.4; and JSON, for the page.  Each
 * returns 0 or -ENOMEM. */
int status_prometheus(FILE *out, const struct ss_metrics_page *page);
int status_json(FILE *out, const struct ss_metrics_page *page);

/* The page itself, from metrics_page.html. */
extern const char status_page[];
extern const char status_page_end[];

#endif
