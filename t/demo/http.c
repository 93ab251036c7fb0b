/*
 * http: the demo's client.
 * usage: http METHOD URL [BODY]
 *
 * Prints the answer's body; exits with 0 for 2xx, else with 1 and the status
 * on standard error.  Speaks to http://localhost:PORT/... only.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	static const char prefix[] = "http://localhost:";
	struct sockaddr_in a;
	const char *path, *body;
	char line[4096];
	FILE *c;
	int fd, status = 0;

	if (argc < 3 || strncmp(argv[2], prefix, sizeof(prefix) - 1)) {
		fprintf(stderr, "usage: http METHOD %sPORT/PATH [BODY]\n", prefix);
		return 2;
	}
	path = strchr(argv[2] + sizeof(prefix) - 1, '/');
	body = argc > 3 ? argv[3] : "";
	memset(&a, 0, sizeof(a));
	a.sin_family = AF_INET;
	a.sin_port = htons((unsigned short)atoi(argv[2] + sizeof(prefix) - 1));
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0
	|| !(c = fdopen(fd, "r+"))) {
		perror(argv[2]);
		return 1;
	}
	fprintf(c, "%s %s HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s", argv[1], path ? path : "/",
		strlen(body), body);
	fflush(c);
	if (fgets(line, sizeof(line), c))
		sscanf(line, "HTTP/1.%*d %d", &status);
	while (fgets(line, sizeof(line), c) && line[strspn(line, "\r\n")])
		;
	while (fgets(line, sizeof(line), c))
		fputs(line, stdout);
	if (status / 100 != 2)
		fprintf(stderr, "%s %s: status %d\n", argv[1], argv[2], status);
	return status / 100 == 2 ? 0 : 1;
}
