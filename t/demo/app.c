/*
 * app: the demo's web application, a to-do list.
 * usage: app PORT FILE
 *
 * Its data is the file, a line for each item, read and written anew for each
 * request.  GET /items lists them, GET /count counts them, GET / is a page,
 * POST /items adds the body as an item, DELETE /items/N removes the Nth.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *file;

/* Copies the items to out, but for number skip; returns how many there were. */
static int
list(FILE *out, int skip, const char *before, const char *after)
{
	FILE *in = fopen(file, "r");
	char line[1024];
	int n = 0;

	while (in && fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = '\0';
		if (++n != skip && out)
			fprintf(out, "%s%s%s\n", before, line, after);
	}
	if (in)
		fclose(in);
	return n;
}

static int
delete(int which)
{
	char aside[4096];
	FILE *out;
	int n;

	snprintf(aside, sizeof(aside), "%s.new", file);
	out = fopen(aside, "w");
	if (!out)
		return 500;
	n = list(out, which, "", "");
	fclose(out);
	if (which < 1 || which > n)
		return 404;
	return rename(aside, file) == 0 ? 200 : 500;
}

static int
add(const char *item)
{
	FILE *out = fopen(file, "a");

	if (!out)
		return 500;
	fprintf(out, "%s\n", item);
	return fclose(out) == 0 ? 201 : 500;
}

static void
answer(FILE *c)
{
	char line[2048], method[16] = "", path[1024] = "", body[1024] = "";
	size_t length = 0;
	int status = 200;

	if (!fgets(line, sizeof(line), c) || sscanf(line, "%15s %1023s", method, path) != 2)
		return;
	while (fgets(line, sizeof(line), c) && line[strspn(line, "\r\n")])
		if (!strncasecmp(line, "Content-Length:", 15))
			length = strtoul(line + 15, NULL, 10);
	if (length >= sizeof(body))
		length = sizeof(body) - 1;
	body[fread(body, 1, length, c)] = '\0';
	fprintf(stdout, "%s %s\n", method, path);
	fflush(stdout);
	fseek(c, 0, SEEK_CUR);          /* from reading to writing */
	if (!strcmp(method, "POST") && !strcmp(path, "/items"))
		status = *body && !strchr(body, '\n') ? add(body) : 400;
	else if (!strcmp(method, "DELETE") && !strncmp(path, "/items/", 7))
		status = delete(atoi(path + 7));
	else if (strcmp(method, "GET") || (strcmp(path, "/") && strcmp(path, "/items")
	&& strcmp(path, "/count")))
		status = 404;
	fprintf(c, "HTTP/1.0 %d .\r\nConnection: close\r\n\r\n", status);
	if (status != 200 || strcmp(method, "GET"))
		return;
	if (!strcmp(path, "/items"))
		list(c, 0, "", "");
	else if (!strcmp(path, "/count"))
		fprintf(c, "%d\n", list(NULL, 0, "", ""));
	else {
		fprintf(c, "<title>To do</title>\n<ul>\n");
		list(c, 0, "<li>", "</li>");
		fprintf(c, "</ul>\n");
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_in a;
	int s, fd, on = 1;
	FILE *c;

	if (argc != 3) {
		fprintf(stderr, "usage: app PORT FILE\n");
		return 2;
	}
	file = argv[2];
	signal(SIGPIPE, SIG_IGN);
	memset(&a, 0, sizeof(a));
	a.sin_family = AF_INET;
	a.sin_port = htons((unsigned short)atoi(argv[1]));
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0
	|| bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 16) < 0) {
		perror("app");
		return 1;
	}
	while ((fd = accept(s, NULL, NULL)) >= 0) {
		c = fdopen(fd, "r+");
		if (c) {
			answer(c);
			fclose(c);
		} else {
			close(fd);
		}
	}
	perror("app: accept");
	return 1;
}
