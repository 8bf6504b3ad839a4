if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	# An upgrade: what runs is the version before.
	if [ "$1" -gt 1 ]; then
		systemctl try-restart tracer.service || :
	fi
fi
