/* shoal-layer COMMAND --option value ...: the commands are in docs/images.md. Result or error: the last line on stderr. */
#include "layer.h"

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum option_id { ROOT = 1, PATH, NAME, BLOB, IMPLIED, RESUME, RECOMPRESS, PLAIN, NO_OWNER, NO_OVERWRITE_DIR, BYTES_MAX, ENTRIES_MAX, OVERLAY, GZIP, LOWER, UPPER, WORK, LIST, SOURCE, TYPE, OPTIONS_TEXT, OWNER, NO_TIMES, FLATTEN, CONTAIN };

static const struct option OPTIONS[] = {
	{ "root", 1, NULL, ROOT }, { "path", 1, NULL, PATH }, { "name", 1, NULL, NAME }, { "blob", 1, NULL, BLOB },
	{ "implied", 1, NULL, IMPLIED }, { "resume", 0, NULL, RESUME }, { "recompress", 0, NULL, RECOMPRESS },
	{ "plain", 0, NULL, PLAIN }, { "no-owner", 0, NULL, NO_OWNER }, { "no-overwrite-dir", 0, NULL, NO_OVERWRITE_DIR },
	{ "bytes-max", 1, NULL, BYTES_MAX }, { "entries-max", 1, NULL, ENTRIES_MAX }, { "overlay", 0, NULL, OVERLAY },
	{ "gzip", 0, NULL, GZIP }, { "lower", 1, NULL, LOWER }, { "upper", 1, NULL, UPPER }, { "work", 1, NULL, WORK },
	{ "list", 1, NULL, LIST }, { "source", 1, NULL, SOURCE }, { "type", 1, NULL, TYPE },
	{ "options", 1, NULL, OPTIONS_TEXT }, { "owner", 1, NULL, OWNER }, { "no-times", 0, NULL, NO_TIMES },
	{ "flatten", 0, NULL, FLATTEN }, { "contain", 0, NULL, CONTAIN }, { 0 },
};

static uint64_t parse_number(const char *text)
{
	char *end;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-')
		report_fail(EINVAL, text, "not a number");
	return n;
}

/* UID:GID */
static void parse_owner(const char *text, struct apply_options *o)
{
	char *copy = xstrdup(text), *colon = strchr(copy, ':');
	if (!colon)
		report_fail(EINVAL, text, "not UID:GID");
	*colon = 0;
	o->uid = (uid_t)parse_number(copy);
	o->gid = (gid_t)parse_number(colon + 1);
	o->gives_owner = true;
	free(copy);
}

static const char *need(const char *value, const char *option)
{
	if (!value)
		report_fail(EINVAL, NULL, "the option --%s is missing", option);
	return value;
}

int main(int argc, char **argv)
{
	/* Names that are UTF-8 pass libarchive's conversion unchanged in this locale; others it hands on byte for byte. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "en_US.UTF-8");
	signal(SIGPIPE, SIG_IGN);
	/* The daemon that asked is gone: nobody wants the rest. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	umask(022);
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	struct apply_options apply = { .path = "", .keep_owner = true, .bytes_max = UINT64_MAX, .entries_max = UINT64_MAX };
	struct pack_options pack = { .path = "" };
	struct overlay_spec overlay = { 0 };
	const char *source = "", *type = "", *options = "";
	const char *list = NULL, *command = argc > 1 ? argv[1] : "";
	optind = 2;
	for (int c; (c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
		switch (c) {
		case ROOT: apply.root = pack.root = optarg; break;
		case PATH: apply.path = pack.path = optarg; break;
		case NAME: pack.name = optarg; break;
		case BLOB: apply.blob = pack.blob = optarg; break;
		case IMPLIED: apply.implied = optarg; break;
		case RESUME: apply.resume = true; break;
		case RECOMPRESS: apply.recompress = true; break;
		case PLAIN: apply.plain = true; break;
		case NO_OWNER: apply.keep_owner = false; break;
		case OWNER:
			parse_owner(optarg, &apply);
			break;
		case CONTAIN: apply.contain = true; break;
		case FLATTEN: apply.flatten = true; break;
		case NO_TIMES: pack.no_times = true; break;
		case NO_OVERWRITE_DIR: apply.no_overwrite_dir = true; break;
		case BYTES_MAX: apply.bytes_max = parse_number(optarg); break;
		case ENTRIES_MAX: apply.entries_max = parse_number(optarg); break;
		case OVERLAY: pack.overlay = true; break;
		case GZIP: pack.gzip = true; break;
		case LOWER:
			if (overlay.lower_count == OVERLAY_LAYERS_MAX)
				report_fail(E2BIG, optarg, "more than %d layers", OVERLAY_LAYERS_MAX);
			overlay.lower[overlay.lower_count++] = optarg;
			break;
		case UPPER: overlay.upper = optarg; break;
		case WORK: overlay.work = optarg; break;
		case LIST: list = optarg; break;
		case SOURCE: source = optarg; break;
		case TYPE: type = optarg; break;
		case OPTIONS_TEXT: options = optarg; break;
		default: report_fail(EINVAL, NULL, "unknown option or missing value");
		}
	}
	char *clean = path_clean(apply.path);
	if (!clean)
		report_fail(EINVAL, apply.path, "the path leads out of the tree");
	if (strcmp(command, "apply") == 0) {
		need(apply.root, "root");
		apply.path = clean;
		return command_apply(&apply);
	}
	if (strcmp(command, "pack") == 0)
		return need(pack.root, "root") ? command_pack(&pack) : 1;
	if (strcmp(command, "probe") == 0)
		return command_probe(need(apply.root, "root"), clean);
	if (strcmp(command, "hold") == 0)
		return command_hold(&overlay);
	if (strcmp(command, "cat") == 0)
		return command_cat(&overlay, apply.path, apply.bytes_max);
	if (strcmp(command, "changes") == 0)
		return need(overlay.upper, "upper") ? command_changes(&overlay) : 1;
	if (strcmp(command, "usage") == 0)
		return command_usage(argv + optind, argc - optind);
	if (strcmp(command, "inherit") == 0)
		return command_inherit(&overlay, need(apply.root, "root"), need(list, "list"));
	if (strcmp(command, "mountpoints") == 0)
		return command_mountpoints(&overlay, need(apply.root, "root"), argv + optind, argc - optind);
	if (strcmp(command, "mount") == 0)
		return command_mount(source, need(apply.root, "root"), type, options);
	if (strcmp(command, "umount") == 0)
		return command_umount(need(apply.root, "root"));
	if (strcmp(command, "sync") == 0)
		return command_sync(need(apply.root, "root"));
	if (strcmp(command, "remove") == 0)
		return command_remove(need(apply.root, "root"));
	report_fail(EINVAL, command, "unknown command");
}
