/*
 * urls: reads database URLs, a line each; prints what the app gets and what libpq or
 * psql gets, or why the URL is refused.  The clone is N, the attempt's directory /abs.
 */
#include "../prun.h"

int
main(void)
{
	char line[4096];
	const char *wrong;

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		wrong = url_check(line);
		if (wrong)
			printf("refused: %s\n", wrong);
		else if (url_kind(line) == URL_FILE)
			printf("%s\n", url_clone(line, "N", "/abs"));
		else
			printf("%s | %s\n", url_clone(line, "N", "/abs"),
				url_admin(line, "P", ""));
	}
	return 0;
}
