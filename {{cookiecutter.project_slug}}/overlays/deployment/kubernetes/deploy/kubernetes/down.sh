#!/bin/sh
# Deletes the project's namespace, and with it everything that up.sh created. Needs PROJECT and NAMESPACE.
set -u
# shellcheck source-path=SCRIPTDIR source=context.sh
. "$(dirname "$0")/context.sh"

if [ -z "$owner" ]; then
    echo "There is no namespace $NAMESPACE in $context: nothing to delete"
    exit
fi
echo "Deleting the namespace $NAMESPACE of $context, with all its data"
kubectl --context="$context" delete namespace "$NAMESPACE" > /dev/null
